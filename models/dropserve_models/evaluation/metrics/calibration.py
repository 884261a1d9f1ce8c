"""Whether the confidence of a classifier is how often it is right."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from dropserve_models.evaluation.metrics.classification import correct
from dropserve_models.evaluation.metrics.gaussian import Doubles

BINS = 15


@dataclass(frozen=True, slots=True)
class Reliability:
    """Rows in bins of equal width by their confidence, the probability of the most probable class.

    Attributes
    ----------
    edges : ndarray [bins + 1]
        From 0 to 1; a bin holds its upper edge.
    counts : ndarray of int [bins]
        Rows in each bin.
    confidence, accuracy : ndarray [bins]
        Means over the bin's rows; NaN where there are none.
    """

    edges: Doubles
    counts: NDArray[np.int64]
    confidence: Doubles
    accuracy: Doubles


def reliability(classes: ArrayLike, probabilities: ArrayLike, bins: int = BINS) -> Reliability:
    """Accuracy by confidence.

    Parameters
    ----------
    classes : array-like of int [rows]
    probabilities : array-like [rows, classes]
    bins : int
    """
    confidence = np.max(np.asarray(probabilities, np.float64), axis=1)
    place = places(confidence, bins)
    counts = np.bincount(place, minlength=bins)

    def mean(values: ArrayLike) -> Doubles:
        total = np.bincount(place, np.asarray(values, np.float64), minlength=bins)
        result: Doubles = np.divide(total, counts, out=np.full(bins, np.nan), where=counts > 0)
        return result

    return Reliability(
        np.linspace(0.0, 1.0, bins + 1), counts, mean(confidence), mean(correct(classes, probabilities))
    )


def expected_calibration_error(classes: ArrayLike, probabilities: ArrayLike, bins: int = BINS) -> float:
    """ECE: mean over the rows of |accuracy - confidence| of their bins (Guo et al., ICML 2017, equation 3).

    Chance alone makes it larger than 0, the more so the fewer rows there are in a bin.
    """
    found = reliability(classes, probabilities, bins)
    held = found.counts > 0
    gaps = np.abs(found.accuracy[held] - found.confidence[held])
    return float((found.counts[held] * gaps).sum() / found.counts.sum())


def places(confidence: Doubles, bins: int) -> NDArray[np.int64]:
    """The bin of each confidence."""
    return np.clip(np.ceil(confidence * bins).astype(np.int64) - 1, 0, bins - 1)
