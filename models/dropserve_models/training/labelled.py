"""Rows to evaluate models on: the columns that they take, by name, and the truth."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from dropserve_models.columns import Column
from dropserve_models.errors import DataError
from dropserve_models.features import read_features
from dropserve_models.prediction import ModelInfo
from dropserve_models.training import columns
from dropserve_models.training.sources import read_columns, resolve_columns
from dropserve_models.training.table import Table, Target, listed
from dropserve_models.training.task import class_labels

_HINT = "the model takes numbers there: correct it"


@dataclass(frozen=True, slots=True)
class Labelled:
    """Rows with their truth.

    Attributes
    ----------
    features : DataFrame
        The columns that the models take: numbers, and categories by name.
    truth : ndarray [rows, outputs]
        Targets, or the labels of the classes, [rows, 1].
    numeric : frozenset of str
        The columns of numbers.
    table : Table
        What training would have made of them, for the first model.
    """

    features: pl.DataFrame
    truth: NDArray[Any]
    numeric: frozenset[str]
    table: Table


def read_labelled(
    source: str, models: Sequence[ModelInfo], targets: Sequence[str] = (), *, header: bool = True
) -> Labelled:
    """Read the columns that models take, and the first model's targets; other columns are ignored.

    Parameters
    ----------
    source, header
        See `sources.read_table`.
    models : sequence of ModelInfo
        All of one task and the same outputs.
    targets : sequence of str
        Columns that hold the truth, by name or number. Left out: those of the outputs' names for
        regression; for classifiers the only column that is no feature.

    Raises
    ------
    DataError
        The source can't be read; a column is not there, or holds what the model can't answer.
    """
    read = read_columns(source, header=header)
    features = _features(read, models, source)
    found = _targets(read, models, targets, source)
    info = models[0]
    if info.task == "regression":
        truth: NDArray[Any] = np.stack([_numbers(target) for target in found], axis=1)
    else:
        truth = _classes(found[0], info)[:, None]
    own = read_features(features, info.feature_names, info.columns)
    numeric = frozenset(name for name, column in _wanted(models).items() if column.kind == "number")
    return Labelled(features, truth, numeric, Table(info.feature_names, own, tuple(found), info.columns))


def read_rows(source: str, models: Sequence[ModelInfo], *, header: bool = True) -> pl.DataFrame:
    """Read the columns that models take, of rows without truth.

    Raises
    ------
    DataError
        The source can't be read, or a column is not there.
    """
    return _features(read_columns(source, header=header), models, source)


def _features(read: pl.DataFrame | Table, models: Sequence[ModelInfo], source: str) -> pl.DataFrame:
    wanted = _wanted(models)
    held = list(read.feature_names) if isinstance(read, Table) else read.columns
    absent = next((name for name in wanted if name not in held), None)
    if absent is not None:
        needing = next(info for info in models if absent in info.feature_names)
        raise DataError(
            f"{source} has no column {absent!r}, which {needing.name}/{needing.version} needs; "
            f"it has: {listed(held)}"
        )
    frame = _by_name(read) if isinstance(read, Table) else read
    return pl.DataFrame([_feature(frame[name], column) for name, column in wanted.items()])


def _feature(values: pl.Series, column: Column) -> pl.Series:
    if column.kind == "number":
        numbers = columns.feature_numbers(values, missing=column.accepts_missing, hint=_HINT)
        return pl.Series(values.name, numbers)
    if not column.accepts_missing:
        columns.check_present(values)
    return values


def _wanted(models: Sequence[ModelInfo]) -> dict[str, Column]:
    """The columns that models take, as the first of them does that takes one."""
    wanted: dict[str, Column] = {}
    for info in models:
        held = info.columns or (Column(),) * len(info.feature_names)
        wanted = dict(zip(info.feature_names, held, strict=True)) | wanted
    return {name: wanted[name] for info in models for name in info.feature_names}


def _by_name(table: Table) -> pl.DataFrame:
    """A table's features, its categories by name again."""
    held = table.columns or (Column(),) * len(table.feature_names)
    series = []
    for name, column, values in zip(table.feature_names, held, table.features.T, strict=True):
        if column.kind == "category":
            named = [None if np.isnan(code) else column.categories[int(code)] for code in values]
            series.append(pl.Series(name, named, pl.String))
        else:
            series.append(pl.Series(name, values))
    return pl.DataFrame(series)


def _targets(
    read: pl.DataFrame | Table, models: Sequence[ModelInfo], given: Sequence[str], source: str
) -> list[Target]:
    info = models[0]
    names = [target.name for target in read.targets] if isinstance(read, Table) else read.columns
    chosen = resolve_columns(given, names, source) if given else _implied(names, info, models, source)
    wanted = len(info.output_names) if info.task == "regression" else 1
    if len(chosen) != wanted:
        raise DataError(f"{info.name}/{info.version} has {wanted} targets; {len(chosen)} were given")
    if isinstance(read, Table):
        return [read.targets[names.index(name)] for name in chosen]
    return [columns.target(read[name]) for name in chosen]


def _implied(names: Sequence[str], info: ModelInfo, models: Sequence[ModelInfo], source: str) -> list[str]:
    """The columns that must be the targets, where nobody says."""
    if info.task == "regression":
        if set(info.output_names) <= set(names):
            return list(info.output_names)
        if len(names) == len(info.output_names) == 1:
            return list(names)
        absent = next(name for name in info.output_names if name not in names)
        raise DataError(
            f"{source} has no column {absent!r}, which {info.name}/{info.version} predicts: name the column "
            f"that holds it with --target; there are: {listed(names)}"
        )
    features = {name for one in models for name in one.feature_names}
    others = [name for name in names if name not in features]
    if len(others) != 1:
        raise DataError(
            f"which column of {source} holds the classes? name it with --target; "
            + (
                f"besides the features there are: {listed(others)}"
                if others
                else f"there are: {listed(names)}"
            )
        )
    return others


def _numbers(target: Target) -> NDArray[np.float64]:
    if target.is_text:
        raise DataError(
            f"column {target.name!r} holds text ({target.values[0]!s}); the model predicts numbers"
        )
    return target.values.astype(np.float64)


def _classes(target: Target, info: ModelInfo) -> NDArray[np.str_]:
    found, numbers = np.unique(target.values, return_inverse=True)
    labels = np.array(class_labels(target, found))
    for number, label in enumerate(labels.tolist()):
        if label not in info.output_names:
            row = int(np.flatnonzero(numbers == number)[0])
            raise DataError(
                f"column {target.name!r}, row {row + 1}: {label!r} is no class of "
                f"{info.name}/{info.version}; it has: {listed(info.output_names)}"
            )
    classes: NDArray[np.str_] = labels[numbers]
    return classes
