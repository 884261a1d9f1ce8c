"""Scores of class probabilities [rows, classes] against true classes [rows], by number."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from dropserve_models.evaluation.metrics.gaussian import Doubles
from dropserve_models.evaluation.metrics.ranking import placements

_TINY = float(np.finfo(np.float32).tiny)  # what float32 can't hold apart from 0 costs 87 nats, not infinity


def correct(classes: ArrayLike, probabilities: ArrayLike) -> NDArray[np.bool_]:
    """Whether the most probable class is the true one, [rows]; the mean is the accuracy."""
    right: NDArray[np.bool_] = np.argmax(probabilities, axis=1) == np.asarray(classes)
    return right


def log_probability(classes: ArrayLike, probabilities: ArrayLike) -> Doubles:
    """Log of the probability of the true class, in nats, [rows]; the mean is the log-likelihood a row.

    Of probabilities that are means over Monte Carlo passes this is Gal's log-likelihood as well:
    logsumexp_t log p_t - log T.
    """
    return np.log(np.maximum(_of_the_truth(classes, probabilities), _TINY))


def brier(classes: ArrayLike, probabilities: ArrayLike) -> Doubles:
    """Brier score of each row: squared distance of the probabilities from the truth (1 for it, 0 elsewhere).

    Summed over the classes, in [0, 2]; of two classes that of one, in [0, 1], as is usual (and as
    scikit-learn's brier_score_loss does).
    """
    truth = _of_the_truth(classes, probabilities)
    probabilities = np.asarray(probabilities, np.float64)
    squared: Doubles = np.square(probabilities).sum(axis=1) - np.square(truth) + np.square(1.0 - truth)
    return squared / 2.0 if probabilities.shape[1] == 2 else squared


def auc(classes: ArrayLike, probabilities: ArrayLike) -> float | None:
    """Area under the ROC curve; of more than two classes the mean of each against the rest.

    The mean is over the classes that occur. None where only one does: it is not defined there.
    """
    found = auc_placements(classes, probabilities)
    return None if found is None else float(found.mean())


def auc_placements(classes: ArrayLike, probabilities: ArrayLike) -> Doubles | None:
    """What each row contributes to `auc`: the mean of `ranking.placements` over the classes."""
    classes, probabilities = np.asarray(classes), np.asarray(probabilities)
    numbers = [1] if probabilities.shape[1] == 2 else np.unique(classes).tolist()
    found = [placements(classes == number, probabilities[:, number]) for number in numbers]
    defined = [area for area in found if area is not None]
    return np.mean(defined, axis=0) if defined else None


def _of_the_truth(classes: ArrayLike, probabilities: ArrayLike) -> Doubles:
    probabilities = np.asarray(probabilities, np.float64)
    chosen: Doubles = np.take_along_axis(probabilities, np.asarray(classes, np.int64)[:, None], axis=1)[:, 0]
    return chosen
