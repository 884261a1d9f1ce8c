"""From what a caller has to what the wire wants: float32 features, [rows, features].

Numbers of any width are converted to float32, booleans to 0 and 1; categories and missing values as the
model's columns say. What can't be sent is refused here, where row and column can still be named as the caller
knows them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dropserve_client.columns import accepting, codes, numbers
from dropserve_client.errors import InputError
from dropserve_client.types import Column, Features, FloatArray

_NUMBERS = "biuf"
"""numpy's kinds that are converted: booleans, signed and unsigned integers, floats."""
_VALUES = "OU"
"""Those that are read value by value, where the model's columns are known: objects and text."""


class ColumnsNeeded(InputError):
    """X can only be read, if at all, by a model's columns: it holds text, objects or NaN."""


def column_names(X: Features) -> list[str] | None:
    """The names of a frame's columns; None for arrays, and for frames whose columns have no names.

    Columns that are not called by a string (pandas' default 0, 1, 2, ...) have no name.
    """
    kind = type(X)
    if issubclass(kind, np.ndarray):
        return None
    if hasattr(kind, "collect"):
        raise InputError("X is a lazy frame: pass X.collect()", field="inputs")
    # Asked of the type, because pandas answers X.column_names with a column of that name.
    # pyarrow calls the names `column_names`, and the columns themselves `columns`.
    if not hasattr(kind, "__getitem__") or not hasattr(kind, "columns"):
        return None
    names = X.column_names if hasattr(kind, "column_names") else X.columns
    named = [name for name in names if isinstance(name, str)]
    if not named:
        return None
    if len(named) < len(names):
        odd = next(name for name in names if not isinstance(name, str))
        raise InputError(f"X has columns with names and without ({odd!r}): name all of them", field="inputs")
    return named


def read_array(X: Features, columns: Sequence[Column] = ()) -> FloatArray:
    """Features from anything that numpy can read as [rows, features].

    Parameters
    ----------
    columns : sequence of Column
        The model's, where it has any that are not plain numbers. Text and objects are then read as the values
        of these columns; the numbers of an array of numbers are codes where a column has categories.

    Raises
    ------
    ColumnsNeeded
        Where columns might help, and were not given.
    InputError
        Where X has another shape, no rows, something that is not a number, or a number that is not
        finite in float32.
    """
    array = X if isinstance(X, np.ndarray) else _as_array(X)
    by_value = array.dtype.kind in _VALUES
    if array.dtype.kind not in _NUMBERS and not (columns and by_value):
        refusal = ColumnsNeeded if by_value else InputError
        raise refusal(f"X must hold numbers, and numpy reads it as {_of_dtype(array)}", field="inputs")
    if array.ndim != 2:
        hint = ""
        if array.ndim == 1:
            hint = "; one row is X.reshape(1, -1), one feature X.reshape(-1, 1)"
        raise InputError(f"X must be [rows, features], and its shape is {array.shape}{hint}", field="inputs")
    if array.size == 0:
        raise InputError(f"X is empty: its shape is {array.shape}", field="inputs")
    if isinstance(array, np.ma.MaskedArray):
        array = array.filled(None) if by_value else np.ma.filled(array.astype(np.float64), np.nan)
    if columns and array.shape[1] != len(columns):
        raise InputError(
            f"X has {array.shape[1]} columns; the model takes {len(columns)} features", field="inputs"
        )
    if by_value:
        read = [
            _values(array[:, number], column, f"column {number}") for number, column in enumerate(columns)
        ]
        array = np.stack(read, axis=1)
    return _finite(array, columns=columns)


def read_frame(
    frame: Any, names: Sequence[str], feature_names: Sequence[str], columns: Sequence[Column] = ()
) -> FloatArray:
    """The columns that a model wants, by name and in its order; other columns are ignored.

    Parameters
    ----------
    frame
        What `column_names` found names in.
    names : sequence of str
        Those names.
    feature_names : sequence of str
        The model's.
    columns : sequence of Column
        What they hold; empty: numbers, none of which may be missing. Categories are given by name.

    Raises
    ------
    InputError
        As for `read_array`; where columns are missing or of another type it names them.
    """
    have = set(names)
    missing = [name for name in feature_names if name not in have]
    if missing:
        raise InputError(
            f"X has no column {_listed(missing)}; the model wants {len(feature_names)} columns by name "
            "(give an array, X.to_numpy(), to pass them by position)",
            field="inputs",
        )
    kinds = columns or (Column(),) * len(feature_names)
    read = [_read_column(frame[name], name, kind) for name, kind in zip(feature_names, kinds, strict=True)]
    lengths = {len(values) for values in read}
    if len(lengths) > 1:
        raise InputError(f"X has columns of different lengths: {sorted(lengths)}", field="inputs")
    if lengths <= {0}:
        raise InputError("X has no rows", field="inputs")
    return _finite(np.stack(read, axis=1), feature_names, columns)


def _as_array(X: Features) -> NDArray[Any]:
    try:
        return np.asarray(X)
    except Exception as error:  # whatever the __array__ of another library raises
        raise InputError(f"X can't be read as an array: {_first_line(error)}", field="inputs") from error


def _read_column(column: Any, name: str, kind: Column) -> NDArray[Any]:
    try:
        array = np.asarray(column.to_numpy() if hasattr(column, "to_numpy") else column)
    except Exception as error:  # whatever another library raises
        raise InputError(f"column {name!r} can't be read: {_first_line(error)}", field="inputs") from error
    if array.ndim == 1 and (
        kind.kind == "category" or (kind.accepts_missing and array.dtype.kind in _VALUES)
    ):
        return _values(array, kind, f"column {name!r}")
    if array.dtype.kind not in _NUMBERS:
        if getattr(getattr(column, "dtype", None), "kind", "") in tuple(_NUMBERS):
            raise InputError(f"column {name!r} has missing values", field="inputs")
        dtype = getattr(column, "dtype", array.dtype)
        raise InputError(f"column {name!r} must hold numbers, and its type is {dtype}", field="inputs")
    if array.ndim != 1:
        raise InputError(f"X has more than one column {name!r}", field="inputs")
    return array


def _values(values: NDArray[Any], column: Column, where: str) -> NDArray[np.float64]:
    """A column's numbers, or the codes of its categories."""
    if column.kind == "category":
        return codes(values, column)
    try:
        return numbers(values)
    except (TypeError, ValueError) as error:
        raise InputError(f"{where} must hold numbers: {_first_line(error)}", field="inputs") from error


def _finite(array: NDArray[Any], names: Sequence[str] = (), columns: Sequence[Column] = ()) -> FloatArray:
    """As float32 in C order, finite but for missing values."""
    with np.errstate(over="ignore"):
        features = np.ascontiguousarray(array, dtype=np.float32)
    finite = np.isfinite(features)
    if not finite.all() and columns:
        finite |= np.isnan(features) & accepting(columns)
    if not finite.all():
        row, column = (int(index) for index in np.argwhere(~finite)[0])
        value = array[row, column]
        if names and columns and np.isnan(value):
            raise InputError(
                f"column {names[column]!r} has missing values, which the model does not accept there "
                f"(row {row}, counted from 0)",
                field="inputs",
            )
        what = f"{value}" if not np.isfinite(value) else f"{value}, beyond the range of float32"
        where = f"column {names[column]!r}" if names else f"column {column}"
        known = bool(names or columns) or np.isinf(features).any()
        refusal = InputError if known else ColumnsNeeded
        raise refusal(
            f"features must be finite: row {row}, {where} is {what} (counted from 0)", field="inputs"
        )
    return features


def _of_dtype(array: NDArray[Any]) -> str:
    kinds = {
        "O": "objects",
        "U": "strings",
        "S": "bytes",
        "c": "complex numbers",
        "M": "dates",
        "m": "durations",
    }
    return kinds.get(array.dtype.kind, f"{array.dtype}")


def _listed(names: Sequence[str], at_most: int = 5) -> str:
    shown = ", ".join(repr(name) for name in names[:at_most])
    return shown if len(names) <= at_most else f"{shown} and {len(names) - at_most} more"


def _first_line(error: Exception) -> str:
    return (str(error) or type(error).__name__).splitlines()[0]
