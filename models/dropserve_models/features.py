"""Reading the features a caller hands to `predict`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dropserve_models.columns import Column, accepting, codes, numbers
from dropserve_models.errors import InputError
from dropserve_models.prediction import Features, FloatArray

_LARGEST = float(np.finfo(np.float32).max)


def read_features(X: Features, names: Sequence[str], columns: Sequence[Column] = ()) -> FloatArray:
    """Float32 features [rows, len(names)], C-contiguous, finite but for missing values.

    A data frame (pandas, polars: anything with `columns` and `__getitem__`) gives the columns `names`, in
    whatever order it holds them; other columns are ignored. Anything else is read by numpy.

    Parameters
    ----------
    columns : sequence of Column
        What the features hold; empty: numbers, none of which may be missing. Categories are given by name
        in a frame or an array of objects, and by code in an array of numbers.

    Raises
    ------
    InputError
        A column is missing, the shape is not [rows, features], or a value is not a finite number, nor a
        missing one where the column accepts it.
    """
    by_name = False
    if hasattr(X, "columns") and hasattr(X, "__getitem__"):
        held = {str(column): column for column in X.columns}
        missing = [name for name in names if name not in held]
        if missing:
            raise InputError(
                "inputs", f"the frame has no column {missing[0]!r}; the model needs {', '.join(names)}"
            )
        by_name = True
        series = [np.asarray(X[held[name]]) for name in names]
    elif columns and (array := np.asarray(X)).ndim == 2 and array.shape[1] == len(names):
        by_name = array.dtype.kind not in "biuf"
        series = list(array.T)
    if by_name:
        kinds = columns or (Column(),) * len(names)
        read = zip(series, kinds, names, strict=True)
        X = np.column_stack([_read(values, column, name) for values, column, name in read])
    wide = _numbers(X, "the features are")
    if wide.ndim == 1 and len(wide) == len(names):
        raise InputError("inputs", "one row must be given as [1, features]: use X.reshape(1, -1) or [row]")
    check_shape(wide.shape, len(names))
    check_finite(wide, names, accepting(columns))
    if wide.dtype != np.float32 and (np.abs(wide) > _LARGEST).any():
        row, column = np.argwhere(np.abs(wide) > _LARGEST)[0]
        raise InputError(
            "inputs", f"row {row}, {names[column]!r}: {wide[row, column]:g} is beyond float32's range"
        )
    return np.ascontiguousarray(wide, np.float32)


def _read(values: NDArray[Any], column: Column, name: str) -> NDArray[Any]:
    """One column's numbers, or codes."""
    if column.kind == "category":
        return codes(values, column)
    if values.dtype.kind == "U":  # as numpy reads a list of text and numbers
        values = values.astype(object)
    return _numbers(values, f"column {name!r} holds")


def _numbers(values: Features, what: str) -> NDArray[Any]:
    """Values as float32 where they are, without a copy, as float64 otherwise.

    `what` opens the message where they are something else than numbers.
    """
    try:
        array = np.asarray(values)
        if array.dtype.kind not in "biufO":  # text, complex numbers, dates
            raise TypeError(array.dtype)
        return numbers(array)
    except (TypeError, ValueError):
        raise InputError("inputs", f"{what} not numbers; expected an array [rows, features]") from None


def check_shape(shape: Sequence[int], features: int) -> None:
    """Raise InputError unless `shape` is [rows, features] with at least one row."""
    if len(shape) != 2 or shape[1] != features or shape[0] < 1:
        raise InputError(
            "inputs",
            f"the features have shape {list(shape)}; the model takes [rows, {features}], at least one row",
        )


def check_finite(
    features: np.ndarray, names: Sequence[str], accepted: NDArray[np.bool_] | None = None
) -> None:
    """Raise InputError at the first infinity, or NaN in a column not `accepted`, naming row and column."""
    usable = np.isfinite(features)
    if usable.all():
        return
    if accepted is not None:
        usable |= np.isnan(features) & accepted
    if not usable.all():
        row, column = np.argwhere(~usable)[0]
        missing = np.isnan(features[row, column]) and accepted is not None
        raise InputError(
            "inputs",
            f"row {row}, column {column} ({names[column]!r}) is {features[row, column]}; "
            + (
                "the column had no missing value in training"
                if missing
                else "every feature must be a finite number"
            ),
        )
