"""Rows out of distribution, made of rows that are in it."""

from __future__ import annotations

import numpy as np

from dropserve_models.prediction import FloatArray


def shuffled(features: FloatArray, seed: int) -> FloatArray:
    """Every column's values in an order of its own: each column alone is as before, together they are not."""
    random = np.random.default_rng(seed)
    result = features.copy()
    for column in result.T:
        random.shuffle(column)
    return result


def scaled(features: FloatArray, factor: float) -> FloatArray:
    """Every value `factor` times as far from its column's mean: rows away from all data. NaN stays."""
    centre = np.nanmean(features.astype(np.float64), axis=0)
    return np.asarray(centre + factor * (features - centre), np.float32)
