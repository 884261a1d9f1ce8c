"""Reading the features a caller hands to `predict`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dropserve_models.errors import InputError
from dropserve_models.prediction import Features, FloatArray

_LARGEST = float(np.finfo(np.float32).max)


def read_features(X: Features, names: Sequence[str]) -> FloatArray:
    """Finite float32 features [rows, len(names)], C-contiguous.

    A data frame (pandas, polars: anything with `columns` and `__getitem__`) gives the columns `names`, in
    whatever order it holds them; other columns are ignored. Anything else is read by numpy.

    Raises
    ------
    InputError
        A column is missing, the shape is not [rows, features], or a value is not a finite number.
    """
    if hasattr(X, "columns") and hasattr(X, "__getitem__"):
        held = {str(column): column for column in X.columns}
        missing = [name for name in names if name not in held]
        if missing:
            raise InputError(
                "inputs", f"the frame has no column {missing[0]!r}; the model needs {', '.join(names)}"
            )
        X = np.column_stack([_numbers(X[held[name]], f"column {name!r} holds") for name in names])
    wide = _numbers(X, "the features are")
    if wide.ndim == 1 and len(wide) == len(names):
        raise InputError("inputs", "one row must be given as [1, features]: use X.reshape(1, -1) or [row]")
    check_shape(wide.shape, len(names))
    check_finite(wide, names)
    if wide.dtype != np.float32 and np.abs(wide).max() > _LARGEST:
        row, column = np.argwhere(np.abs(wide) > _LARGEST)[0]
        raise InputError(
            "inputs", f"row {row}, {names[column]!r}: {wide[row, column]:g} is beyond float32's range"
        )
    return np.ascontiguousarray(wide, np.float32)


def _numbers(values: Features, what: str) -> NDArray[Any]:
    """Values as float32 where they are, without a copy, as float64 otherwise.

    `what` opens the message where they are something else than numbers.
    """
    try:
        array = np.asarray(values)
        if array.dtype.kind not in "biufO":  # text, complex numbers, dates
            raise TypeError(array.dtype)
        return array if array.dtype == np.float32 else array.astype(np.float64)
    except (TypeError, ValueError):
        raise InputError("inputs", f"{what} not numbers; expected an array [rows, features]") from None


def check_shape(shape: Sequence[int], features: int) -> None:
    """Raise InputError unless `shape` is [rows, features] with at least one row."""
    if len(shape) != 2 or shape[1] != features or shape[0] < 1:
        raise InputError(
            "inputs",
            f"the features have shape {list(shape)}; the model takes [rows, {features}], at least one row",
        )


def check_finite(features: np.ndarray, names: Sequence[str]) -> None:
    """Raise InputError at the first NaN or infinity, naming its row and column."""
    if not np.isfinite(features).all():
        row, column = np.argwhere(~np.isfinite(features))[0]
        raise InputError(
            "inputs",
            f"row {row}, column {column} ({names[column]!r}) is {features[row, column]}; "
            "every feature must be a finite number",
        )
