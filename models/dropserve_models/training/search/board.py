"""The scores of all settings on all folds, and what they tell in spite of their noise."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dropserve_models.training.config import TrainingConfig

OPTIONS = (
    "hidden",
    "input_drop",
    "hidden_drop",
    "max_norm",
    "weight_decay",
    "learning_rate",
    "epochs",
    "batch_size",
)
"""That a search may choose."""

_SPANS = 4.0
_ROUNDS = 30


@dataclass(slots=True)
class Trial:
    """One setting.

    Attributes
    ----------
    number : int
        In the order of trial, from 0.
    config : TrainingConfig
    scores : dict of int to dict
        By fold: every metric on its rows.
    diverged : bool
        In a fold at least: it is given up.
    """

    number: int
    config: TrainingConfig
    scores: dict[int, dict[str, float]] = field(default_factory=dict)
    diverged: bool = False

    @property
    def options(self) -> dict[str, Any]:
        """Those that a search may choose, JSON."""
        return self.config.model_dump(mode="json", include=set(OPTIONS))


@dataclass(frozen=True, slots=True)
class Standing:
    """What the scores of trials come to when each fold's difficulty is taken out.

    Attributes
    ----------
    means : ndarray [trials]
        More is better; those of hopeless trials are cut off, so that they don't drown the differences that
        matter.
    variances : ndarray [trials]
        Of the means.
    """

    means: NDArray[np.float64]
    variances: NDArray[np.float64]


def standing(scores: NDArray[np.float64]) -> Standing:
    """Means of trials that were not all tried on the same folds.

    A score is taken for the sum of the trial's, the fold's, and noise; fitted by alternating means.

    Parameters
    ----------
    scores : ndarray [trials, folds]
        More is better; NaN where a trial was not tried, -inf where it failed.
    """
    scores = _cut_off(scores)
    tried = np.isfinite(scores)
    counts = tried.sum(axis=1)
    by_fold = np.zeros(scores.shape[1])
    means = np.zeros(len(scores))
    for _ in range(_ROUNDS):
        means = np.nanmean(scores - by_fold, axis=1)
        by_fold = np.nan_to_num(_mean_of_columns(scores - means[:, None], tried))
        by_fold -= by_fold[tried.any(axis=0)].mean()
    rest = (scores - by_fold - means[:, None])[tried]
    freedom = max(tried.sum() - len(scores) - tried.any(axis=0).sum() + 1, 1)
    # The spread is shared: a handful of folds says little about a single trial's own.
    return Standing(means, np.square(rest).sum() / freedom / counts)


def _cut_off(scores: NDArray[np.float64]) -> NDArray[np.float64]:
    tried = ~np.isnan(scores)
    highest = np.max(np.where(tried & np.isfinite(scores), scores, -np.inf), axis=0)
    highest = np.where(np.isfinite(highest), highest, 0.0)
    behind = highest - scores
    known = behind[tried & np.isfinite(behind) & (behind > 0.0)]  # the best of a fold says nothing
    span = _SPANS * float(np.median(known)) if known.size else 0.0
    lowest = highest - max(span, 1e-9)
    cut_off: NDArray[np.float64] = np.where(tried, np.maximum(scores, lowest), np.nan)
    return cut_off


def _mean_of_columns(values: NDArray[np.float64], known: NDArray[np.bool_]) -> NDArray[np.float64]:
    counts = known.sum(axis=0)
    means: NDArray[np.float64] = np.where(known, values, 0.0).sum(axis=0) / np.where(counts, counts, 1)
    return means
