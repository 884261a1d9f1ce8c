"""The truth that answers are compared with."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from dropserve_models.columns import number_name
from dropserve_models.errors import InputError
from dropserve_models.prediction import ModelInfo


def read_truth(y: ArrayLike, info: ModelInfo, rows: int) -> NDArray[np.float64]:
    """The truth as [rows, outputs] targets, or [rows, 1] numbers of classes.

    Raises
    ------
    InputError
        The shape is not that of the answers, a target is no finite number, or a class not the model's.
    """
    try:
        values: NDArray[Any] = np.asarray(y)
    except ValueError:  # rows of different lengths
        raise InputError("y", "the truth can't be read as an array [rows] or [rows, outputs]") from None
    if values.ndim < 2:
        values = values.reshape(-1, 1)
    columns = len(info.output_names) if info.task == "regression" else 1
    if values.shape != (rows, columns):
        raise InputError(
            "y",
            f"the truth has shape {list(values.shape)}; {rows} rows of this model have [{rows}, {columns}]",
        )
    return _targets(values) if info.task == "regression" else _classes(values[:, 0], info)[:, None]


def _targets(values: NDArray[Any]) -> NDArray[np.float64]:
    try:
        numbers = values.astype(np.float64)
    except (TypeError, ValueError):
        raise InputError("y", "the targets are not numbers") from None
    if not np.isfinite(numbers).all():
        row = int(np.argwhere(~np.isfinite(numbers))[0, 0])
        raise InputError("y", f"row {row}: the target is not finite")
    return numbers


def _classes(values: NDArray[Any], info: ModelInfo) -> NDArray[np.float64]:
    """The numbers of the classes [rows], which are given by label, or else by number."""
    number_of = {label: number for number, label in enumerate(info.output_names)}
    found = [_label(value) for value in values.tolist()]
    unknown = [label for label in found if label not in number_of]
    if not unknown:
        return np.array([number_of[label] for label in found], np.float64)
    if values.dtype.kind in "iubf":
        numbers = values.astype(np.float64)
        if np.isin(numbers, np.arange(len(number_of))).all():
            return numbers
    raise InputError(
        "y",
        f"row {found.index(unknown[0])}: {unknown[0]!r} is no class of the model; "
        f"it has: {', '.join(info.output_names[:20])}",
    )


def _label(value: object) -> str:
    return number_name(value) if isinstance(value, float) and math.isfinite(value) else str(value)
