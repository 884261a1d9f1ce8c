"""Columns of a file as numbers or classes, or the one line that says why not."""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence

import numpy as np
import polars as pl

from dropserve_models.columns import MISSING, Column
from dropserve_models.errors import DataError
from dropserve_models.training.categories import encode
from dropserve_models.training.table import Doubles, Floats, Target

FLOAT32_MAX = float(np.finfo(np.float32).max)

_DECIMAL_COMMA = r"^-?\d+,\d+$"
_ENCODE = "encode it as a number, or drop the column"
_CORRECT = "most values are: correct it, drop the column, or name it with --categorical"


def features(
    columns: Sequence[pl.Series], categorical: Collection[str] = ()
) -> tuple[Floats, tuple[Column, ...]]:
    """Feature columns as [rows, features], and what they hold.

    Text is categories, unless most of it reads as numbers; so is what `categorical` names.

    Raises
    ------
    DataError
        A value is neither a number nor a category, not finite, or beyond float32; or a column has no values,
        or hardly a category twice.
    """
    result = np.empty((len(columns[0]), len(columns)), np.float32)
    found = []
    for index, column in enumerate(columns):
        named = column.name in categorical
        text = _text(column)
        if named or (text is not None and _is_categorical(text)):
            result[:, index], categories = encode(column, named=named)
        else:
            categories = ()
            result[:, index] = feature_numbers(column, missing=True, hint=_CORRECT)
        missing = np.isnan(result[:, index])
        if missing.all():
            raise DataError(f"column {column.name!r} has no value in any row; drop it")
        found.append(Column("category" if categories else "number", categories, bool(missing.any())))
    plain = all(column == Column() for column in found)
    return result, () if plain else tuple(found)


def target(column: pl.Series) -> Target:
    """The column to predict: numbers where every value is one, text otherwise.

    Raises
    ------
    DataError
        A value is missing or not finite, or most values are numbers and some are not.
    """
    if column.dtype == pl.Boolean:
        _refuse_missing(column.cast(pl.String))
        return Target(column.name, column.cast(pl.String).to_numpy().astype(np.str_))
    text = _text(column)
    if text is not None:
        _refuse_missing(text)
        parsed = text.cast(pl.Float64, strict=False)
        if parsed.null_count() > len(text) / 2:
            return Target(column.name, text.to_numpy().astype(np.str_))
    return Target(column.name, numbers(column))


def feature_numbers(column: pl.Series, *, missing: bool, hint: str) -> Doubles:
    """As `numbers` reads them; raises DataError also where one is beyond float32."""
    values = numbers(column, missing=missing, hint=hint)
    too_large = np.flatnonzero(np.abs(values) > FLOAT32_MAX)
    if too_large.size:
        row = int(too_large[0])
        raise DataError(
            f"column {column.name!r}, row {row + 1}: {values[row]:g} does not fit float32; rescale the column"
        )
    return values


def check_present(column: pl.Series) -> None:
    """Raise DataError at the first missing value of a column, text or not."""
    text = _text(column)
    _refuse_missing(column if text is None else text)


def numbers(column: pl.Series, *, missing: bool = False, hint: str = _ENCODE) -> Doubles:
    """A column as finite float64 numbers, booleans as 0 and 1; NaN for missing values, where they may be.

    `hint` says what to do about a value that is no number.

    Raises
    ------
    DataError
        Names the column, the row (the first row of data is 1), the value, and what to do.
    """
    text = _text(column)
    if text is None and not (column.dtype.is_numeric() or column.dtype == pl.Boolean):
        raise DataError(
            f"column {column.name!r} holds {column.dtype} values, not numbers: "
            "encode it as numbers, or drop it"
        )
    values = column if text is None else text
    if not missing:
        _refuse_missing(values)
    parsed = values.cast(pl.Float64, strict=False)
    unread = parsed.is_null() & ~_missing(values)
    if unread.any():
        row = _first(unread)
        if re.match(_DECIMAL_COMMA, values[row]):
            hint = "write decimals with a point"
        raise DataError(f"column {column.name!r}, row {row + 1}: {values[row]!r} is not a number; {hint}")
    infinite = parsed.is_infinite().fill_null(False)
    if infinite.any():
        row = _first(infinite)
        raise DataError(
            f"column {column.name!r}, row {row + 1}: the value is infinite; fill it, or drop the row"
        )
    return parsed.fill_null(np.nan).to_numpy().astype(np.float64, copy=False)


def _text(column: pl.Series) -> pl.Series | None:
    if column.dtype in (pl.Categorical, pl.Enum):
        column = column.cast(pl.String)
    return column.str.strip_chars() if column.dtype == pl.String else None


def _missing(column: pl.Series) -> pl.Series:
    missing = column.is_null()
    if column.dtype == pl.String:
        return missing | column.str.to_lowercase().is_in(MISSING).fill_null(True)
    return missing | column.is_nan().fill_null(True) if column.dtype.is_float() else missing


def _is_categorical(text: pl.Series) -> bool:
    """Whether most of the values that are there read neither as numbers nor as decimals with a comma."""
    values = text.filter(~_missing(text))
    number = values.cast(pl.Float64, strict=False).is_not_null() | values.str.contains(_DECIMAL_COMMA)
    return int(number.sum()) < len(values) / 2


def _refuse_missing(column: pl.Series) -> None:
    missing = _missing(column)
    if missing.any():
        row = _first(missing)
        shown = f" ({column[row]!r})" if column[row] else ""
        raise DataError(
            f"column {column.name!r}, row {row + 1}: the value is missing{shown}; fill it, or drop the row"
        )


def _first(condition: pl.Series) -> int:
    return int(condition.arg_max() or 0)
