"""Rows out of distribution, made of rows that are in it: columns by name in, columns by name out."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray


def shuffled(columns: Mapping[str, NDArray[Any]], seed: int) -> dict[str, NDArray[Any]]:
    """Every column's values in an order of its own: each column alone is as before, together they are not."""
    random = np.random.default_rng(seed)
    return {name: random.permutation(values) for name, values in columns.items()}


def scaled(
    columns: Mapping[str, NDArray[Any]], factor: float, numeric: Collection[str]
) -> dict[str, NDArray[Any]]:
    """The values of numeric columns `factor` times as far from the mean: rows away from all data.

    Missing values (NaN) stay missing, and categories what they are.
    """

    def away(values: NDArray[Any]) -> NDArray[np.float64]:
        wide = values.astype(np.float64)
        centre = np.nanmean(wide) if np.isfinite(wide).any() else 0.0
        return np.asarray(centre + factor * (wide - centre))

    return {name: away(values) if name in numeric else values for name, values in columns.items()}
