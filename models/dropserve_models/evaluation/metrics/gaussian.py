"""Scores of Gaussian predictive distributions, element by element: arguments broadcast."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike, NDArray

Doubles = NDArray[np.float64]


def gaussian_log_density(y: ArrayLike, mean: ArrayLike, variance: ArrayLike) -> Doubles:
    """Log density of N(mean, variance) at y, in nats: -(log(2 pi variance) + (y - mean)^2 / variance) / 2.

    The density has the inverse unit of y: it depends on the unit that targets are given in.
    """
    variance = np.asarray(variance, np.float64)
    error = np.subtract(y, mean, dtype=np.float64)
    density: Doubles = -0.5 * (np.log(2.0 * np.pi * variance) + np.square(error) / variance)
    return density


def gaussian_crps(y: ArrayLike, mean: ArrayLike, variance: ArrayLike) -> Doubles:
    """Continuous ranked probability score of N(mean, variance) at y, in y's unit; lower is better.

    sd (z (2 Phi(z) - 1) + 2 phi(z) - 1 / sqrt(pi)) with z = (y - mean) / sd: Gneiting & Raftery, JASA 102
    (2007), below equation 21. Of a point, with variance 0, it is the absolute error.
    """
    error = np.subtract(y, mean, dtype=np.float64)
    std = np.sqrt(np.asarray(variance, np.float64))
    crps: Doubles = expected_distance(error, std) - std / math.sqrt(math.pi)
    return crps


def expected_distance(shift: ArrayLike, std: ArrayLike) -> Doubles:
    """E |Z| of Z ~ N(shift, std^2): shift (2 Phi(shift / std) - 1) + 2 std phi(shift / std)."""
    from scipy.special import erf  # only here: importing SciPy takes longer than training small models

    shift, std = np.broadcast_arrays(np.asarray(shift, np.float64), np.asarray(std, np.float64))
    scaled = np.divide(shift, std * math.sqrt(2.0), out=np.full(shift.shape, np.inf), where=std > 0.0)
    distance: Doubles = np.abs(shift) * erf(np.abs(scaled))
    distance += std * math.sqrt(2.0 / math.pi) * np.exp(-np.square(scaled))
    return distance
