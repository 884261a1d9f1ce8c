"""NPZ files: `X` [rows, features], `y` [rows] or [rows, targets], and optionally their names."""

from __future__ import annotations

import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from dropserve_models.columns import Column
from dropserve_models.errors import DataError
from dropserve_models.training import columns
from dropserve_models.training.choice import resolve_categorical
from dropserve_models.training.columns import FLOAT32_MAX
from dropserve_models.training.table import Doubles, Floats, Table, Target


def read_npz(path: Path, categorical: Sequence[str] = ()) -> Table:
    """Read X and y, and `feature_names` and `target_names` where they are; `categorical` as for `read_table`.

    Raises
    ------
    DataError
        Not an NPZ file, an array is missing, of a wrong shape, or holds a value that is no finite number.
    """
    try:
        loaded = _load(path)
        if not isinstance(loaded, np.lib.npyio.NpzFile):
            raise DataError(f"{path} can't be read as NPZ: it holds a single array, without a name")
        with loaded as archive:
            arrays = {key: archive[key] for key in archive.files}
    except (ValueError, OSError, EOFError, zipfile.BadZipFile) as error:
        raise DataError(f"{path} can't be read as NPZ: {str(error).splitlines()[0]}") from error
    for key in ("X", "y"):
        if key not in arrays:
            raise DataError(f"{path} has no array {key!r}; it has: {', '.join(arrays) or 'none'}")
    X, y = arrays["X"], arrays["y"]
    if X.ndim != 2 or y.ndim not in (1, 2) or len(X) != len(y):
        raise DataError(
            f"{path}: X is {list(X.shape)} and y is {list(y.shape)}; "
            "they should be [rows, features] and [rows] or [rows, targets]"
        )
    y = y.reshape(len(y), -1)
    return table_from_arrays(
        X,
        y,
        feature_names=_names(arrays.get("feature_names"), "feature", X.shape[1], path),
        target_names=_names(arrays.get("target_names"), "target", y.shape[1], path),
        categorical=categorical,
    )


def _load(path: Path) -> Any:
    try:
        return np.load(path, allow_pickle=False)
    except ValueError as error:  # numpy takes anything else for a pickle, and would tell how to trust it
        raise DataError(f"{path} can't be read as NPZ: it is no archive of arrays") from error


def table_from_arrays(
    X: NDArray[Any],
    y: NDArray[Any],
    feature_names: tuple[str, ...],
    target_names: tuple[str, ...],
    labels: tuple[str, ...] | None = None,
    categorical: Sequence[str] = (),
) -> Table:
    """Check X [rows, features] and y [rows, targets] and put them into a table.

    NaN in X is a missing value. Columns of text are read as `columns.features` does.

    Raises
    ------
    DataError
        A value is infinite or beyond float32, or a column that should be categorical is not there.
    """
    targets = tuple(Target(name, _target(y[:, i], name), labels) for i, name in enumerate(target_names))
    named = resolve_categorical(categorical, feature_names, "X")
    if named or X.dtype.kind == "U":
        series = [pl.Series(name, X[:, index]) for index, name in enumerate(feature_names)]
        features, found = columns.features(series, named)
        return Table(feature_names, features, targets, found)
    features = _features(X, feature_names)
    missing = [bool(np.isnan(values).any()) for values in features.T]
    found = tuple(Column(accepts_missing=some) for some in missing) if any(missing) else ()
    return Table(feature_names, features, targets, found)


def _features(X: NDArray[Any], names: tuple[str, ...]) -> Floats:
    if X.dtype.kind not in "fiub":
        raise DataError(f"X holds {X.dtype} values, neither numbers nor text")
    bad = np.abs(X.astype(np.float64, copy=False)) > FLOAT32_MAX
    if bad.any():
        row, column = (int(i) for i in np.argwhere(bad)[0])
        raise DataError(
            f"column {names[column]!r}, row {row + 1}: {X[row, column]} is not a finite float32 number; "
            "fill it, rescale the column, or drop the row"
        )
    if (empty := np.flatnonzero(np.isnan(X.astype(np.float64, copy=False)).all(axis=0))).size:
        raise DataError(f"column {names[empty[0]]!r} has no value in any row; drop it")
    return np.ascontiguousarray(X, dtype=np.float32)


def _target(y: NDArray[Any], name: str) -> Doubles | NDArray[np.str_]:
    if y.dtype.kind == "U" or y.dtype.kind == "b":
        return y.astype(np.str_)
    if y.dtype.kind not in "fiu":
        raise DataError(f"the target {name!r} holds {y.dtype} values, neither numbers nor text")
    values = y.astype(np.float64)
    bad = np.flatnonzero(~np.isfinite(values))
    if bad.size:
        raise DataError(
            f"column {name!r}, row {int(bad[0]) + 1}: the value is {values[bad[0]]}; fill it, or drop the row"
        )
    return values


def _names(given: NDArray[Any] | None, kind: str, count: int, path: Path) -> tuple[str, ...]:
    if given is None:
        if kind == "target":
            return ("y",) if count == 1 else tuple(f"y_{i + 1}" for i in range(count))
        return tuple(f"x_{i + 1}" for i in range(count))
    names = tuple(str(name) for name in given.ravel())
    if len(names) != count or len(set(names)) != count:
        raise DataError(f"{path}: {kind}_names has {len(set(names))} different names for {count} {kind}s")
    return names
