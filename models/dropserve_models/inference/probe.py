"""Rows that any model can answer, to try it with."""

from __future__ import annotations

import numpy as np

from dropserve_models.prediction import FloatArray, ModelInfo

ROWS = 32


def probe(info: ModelInfo) -> FloatArray:
    """Features [32, features]: numbers, codes of categories known and unknown, and missing values."""
    random = np.random.default_rng(0)
    rows = random.standard_normal((ROWS, len(info.feature_names)), np.float32)
    for values, column in zip(rows.T, info.columns, strict=False):
        if column.kind == "category":
            values[:] = random.integers(-1, len(column.categories), ROWS)
        if column.accepts_missing:
            values[random.integers(0, ROWS, ROWS // 8)] = np.nan
    return rows
