"""One number that makes a model as sure as it may be: fitted on rows held out.

A classifier's logits are divided by a temperature (Guo et al., ICML 2017), in every pass alike; the noise
variance that a regression predicts is multiplied by a scale, or a constant is found where it predicts none.
"""

from __future__ import annotations

from collections.abc import Callable
from math import exp, log

import numpy as np
from numpy.typing import NDArray

from dropserve_models.training.task import Classes

LARGEST_FACTOR = 100.0
"""Factors are looked for from 1 / 100 to 100."""
PRIOR_SPREAD = 0.5
"""Standard deviation of the factor's logarithm, beforehand."""


def fit_factor(log_likelihood: Callable[[float], float]) -> float:
    """The most probable factor, by a log-normal prior around 1 that some dozens of rows override.

    Likelihood alone would send a temperature to 0 where each of a few rows is classified right.

    Parameters
    ----------
    log_likelihood : callable
        Of all rows together, in nats, by the factor. It must have a single maximum.
    """
    from scipy.optimize import minimize_scalar  # only here: importing it takes a while

    def improbability(place: float) -> float:
        return 0.5 * (place / PRIOR_SPREAD) ** 2 - log_likelihood(exp(place))

    bound = log(LARGEST_FACTOR)
    found = minimize_scalar(improbability, bounds=(-bound, bound), method="bounded", options={"xatol": 1e-5})
    place = float(found.x)
    return exp(place) if improbability(place) < improbability(0.0) else 1.0


def classification_log_likelihood(
    logits: NDArray[np.floating], classes: Classes, temperature: float = 1.0
) -> float:
    """Mean over the rows, in nats, of the log of the true class's probability, averaged over the passes.

    Parameters
    ----------
    logits : ndarray [passes, rows, classes]
        Up to a constant in each pass and row; a single pass for deterministic mode.
    classes : ndarray [rows]
    """
    scaled = logits.astype(np.float64) / temperature
    scaled -= scaled.max(axis=2, keepdims=True)
    right = scaled[:, np.arange(len(classes)), classes]
    logs = right - np.log(np.exp(scaled).sum(axis=2))
    highest = logs.max(axis=0)
    return float((highest + np.log(np.exp(logs - highest).mean(axis=0))).mean())
