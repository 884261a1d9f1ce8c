"""Where a table comes from: a file by its extension, or a bundled set."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import polars as pl

from dropserve_models.errors import DataError
from dropserve_models.training import columns
from dropserve_models.training.arrays import read_npz
from dropserve_models.training.bundled import read_bundled
from dropserve_models.training.delimited import looks_like_data, read_delimited
from dropserve_models.training.table import Table, listed

BUNDLED_PREFIX = "sklearn:"


def read_table(source: str, targets: Sequence[str] = (), *, header: bool = True) -> Table:
    """Read a table to train on.

    Parameters
    ----------
    source : str
        A .csv, .tsv, .parquet or .npz file, or ``sklearn:NAME``.
    targets : sequence of str
        Columns to predict, by name or by number (1 is the first, -1 the last). May be empty where the
        source tells targets from features (.npz, ``sklearn:NAME``): all of them then.
    header : bool
        Whether the first line of a .csv or .tsv file names its columns.

    Raises
    ------
    DataError
        The source can't be read, or its content can't be trained on.
    """
    if source.startswith(BUNDLED_PREFIX):
        return _choose(read_bundled(source.removeprefix(BUNDLED_PREFIX)), targets, source)
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
            return _choose(read_npz(path), targets, source)
        frame = _read_parquet(path) if suffix == ".parquet" else read_delimited(path, header=header)
    except OSError as error:
        raise DataError(f"can't read {source}: {error.strerror or error}") from error
    return _table(frame, targets, source, check_header=header and suffix != ".parquet")


def _read_parquet(path: Path) -> pl.DataFrame:
    try:
        frame = pl.read_parquet(path)
    except pl.exceptions.PolarsError as error:
        raise DataError(f"{path} can't be read as Parquet: {str(error).splitlines()[0]}") from error
    if frame.height == 0:
        raise DataError(f"{path} has no rows")
    return frame


def _table(frame: pl.DataFrame, targets: Sequence[str], source: str, check_header: bool) -> Table:
    hint = (
        "; is the first line data? then --no-header"
        if check_header and looks_like_data(frame.columns)
        else ""
    )
    chosen = _resolve(targets, frame.columns, source, hint)
    feature_names = [name for name in frame.columns if name not in chosen]
    if not feature_names:
        raise DataError(f"{source} has no column but the target: there is nothing to predict from")
    features = columns.features([frame[name] for name in feature_names])
    return Table(tuple(feature_names), features, tuple(columns.target(frame[name]) for name in chosen))


def _choose(table: Table, targets: Sequence[str], source: str) -> Table:
    if not targets:
        return table
    by_name = {target.name: target for target in table.targets}
    chosen = _resolve(targets, list(by_name), source, hint="")
    return Table(table.feature_names, table.features, tuple(by_name[name] for name in chosen))


def _resolve(targets: Sequence[str], names: list[str], source: str, hint: str) -> list[str]:
    shown = listed(names)
    if not targets:
        raise DataError(f"which column of {source} is the target? it has: {shown}{hint}")
    chosen = [_find(target, names) for target in targets]
    for target, name in zip(targets, chosen, strict=True):
        if name is None:
            raise DataError(f"{source} has no column {target!r} to be the target; it has: {shown}{hint}")
    resolved = [name for name in chosen if name is not None]
    if len(set(resolved)) < len(resolved):
        raise DataError(f"a target is given twice: {', '.join(resolved)}")
    return resolved


def _find(target: str, names: list[str]) -> str | None:
    if target in names:
        return target
    try:
        number = int(target)
    except ValueError:
        return None
    if number == 0 or not -len(names) <= number <= len(names):
        return None
    return names[number - 1 if number > 0 else number]
