"""What a model's input columns hold, and how values of theirs travel as float32.

A number travels as itself. A category travels as its code, the index into the column's categories; any other
number stands for a category that the model does not know. A missing value travels as NaN.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

MISSING = ("", "na", "n/a", "nan", "null", "?")
"""Texts that say that a value is missing, whatever their case."""
UNSEEN = -1.0
"""The code of categories that a model does not know."""

_NOTHING = ("NAType", "NaTType")  # pandas'
Kind = Literal["number", "category"]


@dataclass(frozen=True, slots=True)
class Column:
    """One input column.

    Attributes
    ----------
    kind : {"number", "category"}
    categories : tuple of str
        What the codes 0, 1, ... stand for.
    accepts_missing : bool
        Whether a value may be missing.
    """

    kind: Kind = "number"
    categories: tuple[str, ...] = ()
    accepts_missing: bool = False


def is_missing(text: str) -> bool:
    """Whether a text, stripped, says that the value is missing."""
    return text.lower() in MISSING


def number_name(value: float) -> str:
    """The category that a number is: 3 for 3.0, and .1 in float32 the same as in float64."""
    return f"{value:.0f}" if value == int(value) else str(np.float32(value))


def accepting(columns: Sequence[Column]) -> NDArray[np.bool_] | None:
    """Which columns accept missing values; None where none does."""
    accepted = np.array([column.accepts_missing for column in columns], np.bool_)
    return accepted if accepted.any() else None


def codes(values: Iterable[Any], column: Column) -> NDArray[np.float64]:
    """The codes of values: text, numbers, booleans, and whatever stands for a missing value (NaN here)."""
    known = {category: float(code) for code, category in enumerate(column.categories)}
    return np.array([_code(value, known) for value in values], np.float64)


def numbers(values: NDArray[Any]) -> NDArray[Any]:
    """Values as float32 where they are, as float64 otherwise; NaN for those that are missing.

    Raises
    ------
    ValueError, TypeError
        They are something else than numbers, and text that reads as numbers.
    """
    if values.dtype.kind in "biuf":
        return values if values.dtype == np.float32 else values.astype(np.float64)
    if values.dtype.kind not in "OU":
        raise TypeError(values.dtype)
    return np.array([_number(value) for value in values.ravel()], np.float64).reshape(values.shape)


def _number(value: Any) -> float:
    if isinstance(value, str):
        return np.nan if is_missing(text := value.strip()) else float(text)
    return np.nan if value is None or type(value).__name__ in _NOTHING else float(value)


def _code(value: Any, known: Mapping[str, float]) -> float:
    if isinstance(value, str):
        text = value.strip()
        if text in known:
            return known[text]
        return np.nan if is_missing(text) else known.get(_number_of(text), UNSEEN)
    if value is None or type(value).__name__ in _NOTHING:
        return np.nan
    if isinstance(value, bool | np.bool_):
        spellings = (str(bool(value)).lower(), str(bool(value)), str(bool(value)).upper(), str(int(value)))
        return next((known[text] for text in spellings if text in known), UNSEEN)
    try:
        number = float(value)
    except (TypeError, ValueError, OverflowError):
        return known.get(str(value), UNSEEN)
    return np.nan if np.isnan(number) else known.get(_number_of(number), UNSEEN)


def _number_of(value: str | float) -> str:
    """The category that a number is, or text that reads as one; no category's name where it is neither."""
    try:
        return number_name(float(value))
    except (ValueError, OverflowError):  # no number, or not a finite one
        return ""
