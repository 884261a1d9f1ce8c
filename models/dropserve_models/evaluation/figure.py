"""A figure with its standard error.

To first order every figure is the mean of one contribution a row: the row's score where it is a mean, its
influence on the figure (the delta method) elsewhere. The standard error is the contributions' standard
deviation over the square root of their number; that of the difference of two models on the same rows is the
same of the differences of their contributions, so that what is hard for both does not blur which is better.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import ArrayLike

from dropserve_models.evaluation.metrics import (
    ause,
    expected_calibration_error,
    r2,
    rmse,
)
from dropserve_models.evaluation.metrics.calibration import BINS, places
from dropserve_models.evaluation.metrics.classification import correct
from dropserve_models.evaluation.metrics.gaussian import Doubles

_GROUPS = 50


@dataclass(frozen=True, slots=True)
class Figure:
    """A figure of held-out rows.

    Attributes
    ----------
    value : float or None
        None where it is not defined.
    contributions : ndarray
        One for each row, or group of rows; empty where there is no value.
    note : str or None
        Why there is no value.
    """

    value: float | None
    contributions: Doubles = field(default_factory=lambda: np.empty(0), repr=False, compare=False)
    note: str | None = None

    @property
    def standard_error(self) -> float | None:
        """Of the value, over tables of as many rows; None for a single row, which can't tell."""
        if len(self.contributions) < 2:
            return None
        return float(self.contributions.std(ddof=1)) / math.sqrt(len(self.contributions))

    def minus(self, other: Figure) -> Figure | None:
        """The difference to another one of the same rows; None where either has no value."""
        if self.value is None or other.value is None:
            return None
        return Figure(self.value - other.value, self.contributions - other.contributions)


def missing(note: str) -> Figure:
    """A figure that is not defined, and why."""
    return Figure(None, note=note)


def mean_figure(scores: ArrayLike) -> Figure:
    """The mean of scores [rows]."""
    scores = np.asarray(scores, np.float64)
    return Figure(float(scores.mean()), scores)


def rmse_figure(y: Doubles, mean: Doubles) -> Figure:
    """RMSE: a row's influence is that on the mean square, over twice the root."""
    value = rmse(y, mean)
    if value == 0.0:
        return Figure(0.0, np.zeros(len(y)))
    return Figure(value, value + (np.square(y - mean) - value**2) / (2.0 * value))


def r2_figure(y: Doubles, mean: Doubles) -> Figure:
    """R2: a ratio of two means."""
    value = r2(y, mean)
    if value is None:
        return missing("all of the targets are alike")
    spread = np.square(y - y.mean())
    return Figure(value, value + ((1.0 - value) * spread - np.square(y - mean)) / spread.mean())


def calibration_figure(classes: ArrayLike, probabilities: Doubles) -> Figure:
    """ECE: a row's influence is its confidence less 1 where it is right, with the sign of its bin's gap."""
    confidence = probabilities.max(axis=1)
    gap = confidence - correct(classes, probabilities)
    place = places(confidence, BINS)
    sign = np.sign(np.bincount(place, gap, minlength=BINS))
    return Figure(expected_calibration_error(classes, probabilities), sign[place] * gap)


def order_figure(contributions: Doubles | None, note: str) -> Figure:
    """An area under a ROC curve from the rows' placements; `note` says why there are none."""
    return missing(note) if contributions is None else mean_figure(contributions)


def ause_figure(error: Doubles, uncertainty: Doubles) -> Figure:
    """AUSE, with the pseudo-values of a jackknife over groups of rows (Tukey 1958)."""
    value = ause(error, uncertainty)
    groups = min(_GROUPS, len(error))
    if value is None:
        return missing("no row has an error")
    if groups < 2:
        return Figure(value)
    number = np.random.default_rng(0).permutation(len(error)) % groups
    without = [ause(error[number != group], uncertainty[number != group]) for group in range(groups)]
    return Figure(value, np.array([groups * value - (groups - 1) * (part or 0.0) for part in without]))
