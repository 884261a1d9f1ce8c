"""A table to learn from, checked: float32 features and one or more targets."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from dropserve_models.columns import Column

Floats: TypeAlias = NDArray[np.float32]
Doubles: TypeAlias = NDArray[np.float64]
Texts: TypeAlias = NDArray[np.str_]


_NAMES_SHOWN = 20


def listed(names: Sequence[str]) -> str:
    """Names for a message, the first of them where there are many."""
    shown = ", ".join(names[:_NAMES_SHOWN])
    return f"{shown}, ... ({len(names)} in all)" if len(names) > _NAMES_SHOWN else shown


@dataclass(frozen=True, slots=True)
class Target:
    """A column to be predicted.

    Attributes
    ----------
    name : str
    values : ndarray [rows]
        Finite float64 numbers, or text.
    labels : tuple of str or None
        Names of the classes 0, 1, ..., where the source of the data knows them.
    """

    name: str
    values: Doubles | Texts
    labels: tuple[str, ...] | None = None

    @property
    def is_text(self) -> bool:
        """Whether the values are text rather than numbers."""
        return self.values.dtype.kind == "U"


@dataclass(frozen=True, slots=True)
class Table:
    """Features [rows, features], float32 as a server receives them, and their targets.

    Attributes
    ----------
    feature_names : tuple of str
    features : ndarray [rows, features]
        Finite numbers, codes of categories, and NaN where a value is missing.
    targets : tuple of Target
    columns : tuple of Column
        What each feature holds; empty where all are numbers, and none is missing.
    """

    feature_names: tuple[str, ...]
    features: Floats
    targets: tuple[Target, ...]
    columns: tuple[Column, ...] = ()

    @property
    def rows(self) -> int:
        """How many rows there are."""
        return len(self.features)

    def fingerprint(self) -> str:
        """SHA-256 over the column names, the shape, the categories and every value."""
        digest = hashlib.sha256()
        digest.update(repr((self.feature_names, self.features.shape)).encode())
        digest.update(np.ascontiguousarray(self.features).data)
        if self.columns:
            digest.update(repr(self.columns).encode())
        for target in self.targets:
            digest.update(repr((target.name, target.labels)).encode())
            values = target.values
            digest.update("\0".join(values.tolist()).encode() if target.is_text else values.tobytes())
        return digest.hexdigest()
