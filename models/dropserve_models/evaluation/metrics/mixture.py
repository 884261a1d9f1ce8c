"""Scores of what Monte Carlo passes predict together: a mixture with a component for every pass.

The first axis of `means`, `variances` and `samples` counts the passes; the others are those of `y`.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike

from dropserve_models.evaluation.metrics.gaussian import Doubles, expected_distance, gaussian_log_density

_PAIRS = 2**22
"""Of passes and rows, scored at a time: about 100 MB."""


def mixture_log_density(y: ArrayLike, means: ArrayLike, variances: ArrayLike) -> Doubles:
    """Log density at y of the equal mixture of N(means_t, variances_t): Gal's predictive log-likelihood.

    logsumexp_t log N(y; mean_t, variance_t) - log T (Gal & Ghahramani, ICML 2016, equation 8), in nats. With
    finitely many passes it is, on average, a little too low (Jensen's inequality).

    Parameters
    ----------
    y : array-like [rows] or [rows, targets]
    means, variances : array-like [passes, ...]
        Of each pass; `variances` may be broadcast, a single number say.
    """
    from scipy.special import logsumexp

    densities = gaussian_log_density(y, means, variances)
    total: Doubles = logsumexp(densities, axis=0) - math.log(len(densities))
    return total


def mixture_crps(y: ArrayLike, means: ArrayLike, variances: ArrayLike) -> Doubles:
    """Continuous ranked probability score at y of the equal mixture of N(means_t, variances_t).

    mean_t A(y - mean_t, variance_t) - mean_st A(mean_s - mean_t, variance_s + variance_t) / 2, where A(m, v)
    is E |Z| of Z ~ N(m, v): Grimit et al., Q. J. R. Meteorol. Soc. 132 (2006), equation 5. Exact; time grows
    with the square of the passes.

    Parameters
    ----------
    y : array-like [rows] or [rows, targets]
    means, variances : array-like [passes, ...]
        Of each pass; `variances` may be broadcast, and 0 throughout is `ensemble_crps`.
    """
    y = np.asarray(y, np.float64)
    means = np.asarray(means, np.float64)
    variances = np.broadcast_to(np.asarray(variances, np.float64), means.shape)
    passes, shape = len(means), y.shape
    y, means, variances = y.ravel(), means.reshape(passes, -1), variances.reshape(passes, -1)
    result = np.empty(y.shape)
    step = max(1, _PAIRS // passes**2)
    for start in range(0, len(y), step):
        rows = slice(start, start + step)
        centre, spread = means[:, rows], variances[:, rows]
        to_truth = expected_distance(y[rows] - centre, np.sqrt(spread)).mean(axis=0)
        # Of pairs (s, t) and (t, s) one; each pass with itself is at a distance of 2 sqrt(variance / pi).
        first, second = np.triu_indices(passes, 1)
        apart = expected_distance(centre[first] - centre[second], np.sqrt(spread[first] + spread[second]))
        within = 2.0 * apart.sum(axis=0) + 2.0 * np.sqrt(spread / math.pi).sum(axis=0)
        result[rows] = to_truth - 0.5 * within / passes**2
    return result.reshape(shape)


def ensemble_crps(y: ArrayLike, samples: ArrayLike) -> Doubles:
    """Continuous ranked probability score at y of the empirical distribution of samples [passes, ...].

    mean_t |x_t - y| - mean_st |x_s - x_t| / 2, the second term from the sorted samples in T log T (Gneiting &
    Raftery, JASA 102 (2007), equation 20).
    """
    samples = np.asarray(samples, np.float64)
    passes = len(samples)
    to_truth = np.abs(samples - np.asarray(y, np.float64)).mean(axis=0)
    ordered = np.sort(samples, axis=0)
    ranks = (2.0 * np.arange(1, passes + 1) - passes - 1.0).reshape(-1, *[1] * (samples.ndim - 1))
    crps: Doubles = to_truth - (ranks * ordered).sum(axis=0) / passes**2
    return crps
