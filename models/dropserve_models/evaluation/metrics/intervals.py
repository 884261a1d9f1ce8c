"""Prediction intervals: how often they hold the truth, and how wide they are."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from dropserve_models.evaluation.metrics.gaussian import Doubles


def gaussian_interval(mean: ArrayLike, variance: ArrayLike, coverage: float) -> tuple[Doubles, Doubles]:
    """Lower and upper end of the central interval of N(mean, variance) that holds a share `coverage`.

    Parameters
    ----------
    mean, variance : array-like
        Of one shape, which the ends have too.
    coverage : float
        In (0, 1).
    """
    from scipy.special import ndtri

    half = float(ndtri(0.5 + coverage / 2.0)) * np.sqrt(np.asarray(variance, np.float64))
    mean = np.asarray(mean, np.float64)
    return mean - half, mean + half


def covered(y: ArrayLike, lower: ArrayLike, upper: ArrayLike) -> NDArray[np.bool_]:
    """Whether each y is within its interval, the ends included."""
    y = np.asarray(y)
    within: NDArray[np.bool_] = (np.asarray(lower) <= y) & (y <= np.asarray(upper))
    return within


def picp(y: ArrayLike, lower: ArrayLike, upper: ArrayLike) -> float:
    """Prediction interval coverage probability: the share of y within their intervals."""
    return float(covered(y, lower, upper).mean())


def mean_width(lower: ArrayLike, upper: ArrayLike) -> float:
    """Mean width of intervals (MPIW), in the target's unit."""
    return float(np.subtract(upper, lower, dtype=np.float64).mean())
