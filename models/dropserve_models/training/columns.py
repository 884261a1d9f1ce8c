"""Columns of a file as numbers or classes, or the one line that says why not."""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np
import polars as pl

from dropserve_models.errors import DataError
from dropserve_models.training.table import Doubles, Floats, Target

FLOAT32_MAX = float(np.finfo(np.float32).max)

_MISSING = ("", "na", "n/a", "nan", "null", "?")
_DECIMAL_COMMA = re.compile(r"-?\d+,\d+")


def features(columns: Sequence[pl.Series]) -> Floats:
    """Feature columns as [rows, features].

    Raises
    ------
    DataError
        A value is missing, not a number, not finite, or beyond float32.
    """
    rows = len(columns[0])
    result = np.empty((rows, len(columns)), np.float32)
    for index, column in enumerate(columns):
        values = numbers(column)
        too_large = np.flatnonzero(np.abs(values) > FLOAT32_MAX)
        if too_large.size:
            row = int(too_large[0])
            raise DataError(
                f"column {column.name!r}, row {row + 1}: {values[row]:g} does not fit float32; "
                "rescale the column"
            )
        result[:, index] = values
    return result


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


def numbers(column: pl.Series) -> Doubles:
    """A column as finite float64 numbers; booleans are 0 and 1.

    Raises
    ------
    DataError
        Names the column, the row (the first row of data is 1), the value, and what to do.
    """
    text = _text(column)
    if text is None:
        if not (column.dtype.is_numeric() or column.dtype == pl.Boolean):
            raise DataError(
                f"column {column.name!r} holds {column.dtype} values, not numbers: "
                "encode it as numbers, or drop it"
            )
        _refuse_missing(column)
        parsed = column.cast(pl.Float64)
    else:
        _refuse_missing(text)
        parsed = text.cast(pl.Float64, strict=False)
        if parsed.null_count():
            row = _first(parsed.is_null())
            value = text[row]
            hint = (
                "write decimals with a point"
                if _DECIMAL_COMMA.fullmatch(value)
                else "encode it as a number, or drop the column"
            )
            raise DataError(f"column {column.name!r}, row {row + 1}: {value!r} is not a number; {hint}")
    finite = parsed.is_finite()
    if not finite.all():
        row = _first(~finite)
        kind = "NaN (missing)" if np.isnan(parsed[row]) else "infinite"
        raise DataError(
            f"column {column.name!r}, row {row + 1}: the value is {kind}; fill it, or drop the row"
        )
    return parsed.to_numpy().astype(np.float64, copy=False)


def _text(column: pl.Series) -> pl.Series | None:
    if column.dtype in (pl.Categorical, pl.Enum):
        column = column.cast(pl.String)
    return column.str.strip_chars() if column.dtype == pl.String else None


def _refuse_missing(column: pl.Series) -> None:
    missing = column.is_null()
    if column.dtype == pl.String:
        missing = missing | column.str.to_lowercase().is_in(_MISSING).fill_null(True)
    if missing.any():
        row = _first(missing)
        shown = f" ({column[row]!r})" if column[row] else ""
        raise DataError(
            f"column {column.name!r}, row {row + 1}: the value is missing{shown}; fill it, or drop the row"
        )


def _first(condition: pl.Series) -> int:
    return int(condition.arg_max() or 0)
