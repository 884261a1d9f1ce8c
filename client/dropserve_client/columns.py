"""What callers write for the values of a column, as the float32 numbers that travel."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from dropserve_client.types import Column

MISSING: Final = frozenset({"", "na", "n/a", "nan", "null", "?"})
"""Texts that say that a value is missing, whatever their case: the trainer's."""

UNSEEN: Final = -1.0
"""Stands for every category that the model does not know."""


def is_missing(value: Any) -> bool:
    """Whether a value is None, NaN, pandas' NA or NaT, or a text that says so."""
    if isinstance(value, str):
        return value.strip().lower() in MISSING
    # NA compares to nothing, not even to itself.
    if value is None or type(value).__name__ in {"NAType", "NaTType"}:
        return True
    try:
        return bool(value != value)
    except ValueError:  # an array, say, compares value by value
        return False


def accepting(columns: Sequence[Column]) -> NDArray[np.bool_]:
    """Which columns accept missing values."""
    return np.array([column.accepts_missing for column in columns], np.bool_)


def codes(values: NDArray[Any], column: Column) -> NDArray[np.float64]:
    """The code of every value of a categorical column; NaN where it is missing.

    A category goes by its name. A number goes by its shortest form (3 for 3.0), a boolean by true or false.
    """
    known = {name: float(code) for code, name in enumerate(column.categories)}
    found = np.empty(len(values))
    for row, value in enumerate(values):
        name = value.strip() if isinstance(value, str) else None
        if name is not None and name in known:
            found[row] = known[name]
        elif is_missing(value):
            found[row] = np.nan
        else:
            found[row] = next(
                (known[spelling] for spelling in _spellings(value) if spelling in known), UNSEEN
            )
    return found


def numbers(values: NDArray[Any]) -> NDArray[np.float64]:
    """The values of a column of numbers, among them such as numpy keeps as objects or text.

    Raises
    ------
    ValueError, TypeError
        One is no number.
    """
    return np.array([np.nan if is_missing(value) else float(value) for value in values])


def _spellings(value: Any) -> list[str]:
    """The names that a category may have that is given as a number, a boolean or something else."""
    if isinstance(value, bool | np.bool_):
        name = "true" if value else "false"
        return [name, name.title(), name.upper(), str(int(value))]
    try:
        number = float(value)
        return [f"{number:.0f}" if number == int(number) else str(np.float32(number))]
    except (TypeError, ValueError, OverflowError):
        return [str(value)]
