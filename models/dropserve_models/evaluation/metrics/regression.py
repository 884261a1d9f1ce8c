"""Errors of point predictions, in the target's own units. NumPy alone: training calls this every fold."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike


def rmse(y: ArrayLike, mean: ArrayLike) -> float:
    """Root of the mean squared error of predictions [rows]."""
    return math.sqrt(np.square(np.subtract(y, mean, dtype=np.float64)).mean())


def mae(y: ArrayLike, mean: ArrayLike) -> float:
    """Mean absolute error of predictions [rows]."""
    return float(np.abs(np.subtract(y, mean, dtype=np.float64)).mean())


def r2(y: ArrayLike, mean: ArrayLike) -> float | None:
    """Share of the variance of `y` [rows] that predictions explain, 1 - SSE / SST.

    None where all of `y` are alike: it is not defined there.
    """
    y = np.asarray(y, np.float64)
    spread = np.square(y - y.mean()).sum()
    if not spread > 0.0:
        return None
    return float(1.0 - np.square(np.subtract(y, mean, dtype=np.float64)).sum() / spread)
