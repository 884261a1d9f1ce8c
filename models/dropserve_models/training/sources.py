"""Where a table comes from: a file by its extension, or a bundled set."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import polars as pl

from dropserve_models.errors import DataError
from dropserve_models.training import columns
from dropserve_models.training.arrays import read_npz
from dropserve_models.training.bundled import read_bundled
from dropserve_models.training.choice import find_column, one_by_one, resolve_categorical
from dropserve_models.training.delimited import looks_like_data, read_delimited
from dropserve_models.training.table import Table, listed

BUNDLED_PREFIX = "sklearn:"


def read_table(
    source: str, targets: Sequence[str] = (), *, header: bool = True, categorical: Sequence[str] = ()
) -> Table:
    """Read a table to train on.

    Parameters
    ----------
    source : str
        A .csv, .tsv, .parquet or .npz file, or ``sklearn:NAME``.
    targets : sequence of str
        Columns to predict, by name or by number (1 is the first, -1 the last); commas separate several, but
        for a name that has one. May be empty where the source tells targets from features (.npz,
        ``sklearn:NAME``): all of them then.
    header : bool
        Whether the first line of a .csv or .tsv file names its columns.
    categorical : sequence of str
        Columns whose numbers are the names of categories, by name or by number; text is taken for categories
        anyway.

    Raises
    ------
    DataError
        The source can't be read, or its content can't be trained on.
    """
    read = read_columns(source, header=header, categorical=categorical)
    if isinstance(read, Table):
        return _choose(read, targets, source)
    check_header = header and not source.lower().endswith(".parquet")
    return _table(read, targets, source, categorical, check_header=check_header)


def read_columns(
    source: str, *, header: bool = True, categorical: Sequence[str] = ()
) -> pl.DataFrame | Table:
    """All columns of a file as they stand, or a checked table where the source tells targets from features.

    Raises
    ------
    DataError
        The source can't be read.
    """
    if source.startswith(BUNDLED_PREFIX):
        return read_bundled(source.removeprefix(BUNDLED_PREFIX), categorical)
    path = Path(source)
    suffix = path.suffix.lower()
    if suffix not in (".csv", ".tsv", ".parquet", ".npz"):
        raise DataError(
            f"{source}: unknown kind of file; .csv, .tsv, .parquet, .npz or sklearn:NAME can be read"
        )
    if not path.is_file():
        raise DataError(f"there is no file {source}")
    try:
        if path.stat().st_size == 0:
            raise DataError(f"{source} is empty")
        if suffix == ".npz":
            return read_npz(path, categorical)
        return _read_parquet(path) if suffix == ".parquet" else read_delimited(path, header=header)
    except OSError as error:
        raise DataError(f"can't read {source}: {error.strerror or error}") from error


def _read_parquet(path: Path) -> pl.DataFrame:
    try:
        frame = pl.read_parquet(path)
    except pl.exceptions.PolarsError as error:
        raise DataError(f"{path} can't be read as Parquet: {str(error).splitlines()[0]}") from error
    if frame.height == 0:
        raise DataError(f"{path} has no rows")
    return frame


def _table(
    frame: pl.DataFrame, targets: Sequence[str], source: str, categorical: Sequence[str], check_header: bool
) -> Table:
    hint = (
        "; is the first line data? then --no-header"
        if check_header and looks_like_data(frame.columns)
        else ""
    )
    chosen = resolve_columns(targets, frame.columns, source, hint)
    feature_names = [name for name in frame.columns if name not in chosen]
    if not feature_names:
        raise DataError(f"{source} has no column but the target: there is nothing to predict from")
    named = resolve_categorical(categorical, frame.columns, source)
    if wrong := [name for name in named if name in chosen]:
        raise DataError(f"{wrong[0]!r} is the target: it can't be a categorical feature as well")
    features, found = columns.features([frame[name] for name in feature_names], named)
    return Table(tuple(feature_names), features, tuple(columns.target(frame[name]) for name in chosen), found)


def _choose(table: Table, targets: Sequence[str], source: str) -> Table:
    if not targets:
        return table
    by_name = {target.name: target for target in table.targets}
    chosen = resolve_columns(targets, list(by_name), source, hint="")
    return replace(table, targets=tuple(by_name[name] for name in chosen))


def resolve_columns(targets: Sequence[str], names: list[str], source: str, hint: str = "") -> list[str]:
    """The names of the columns to predict, given by name or number; see `read_table`."""
    shown = listed(names)
    targets = one_by_one(targets, names)
    if not targets:
        raise DataError(f"which column of {source} is the target? it has: {shown}{hint}")
    chosen = [find_column(target, names) for target in targets]
    for target, name in zip(targets, chosen, strict=True):
        if name is None:
            raise DataError(f"{source} has no column {target!r} to be the target; it has: {shown}{hint}")
    resolved = [name for name in chosen if name is not None]
    if len(set(resolved)) < len(resolved):
        raise DataError(f"a target is given twice: {', '.join(resolved)}")
    return resolved
