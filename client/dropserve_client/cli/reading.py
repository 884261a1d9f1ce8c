"""Features from a file: CSV, TSV, NPZ, and Parquet where a reader of it is installed.

Which lines and columns of a CSV or TSV file are read:

- The separator of a .tsv file is the tab; otherwise it is the comma, semicolon or tab, whichever the
  first line has most of.
- The first line is a header if it names all the model's features, or if any of its cells is neither a
  number nor missing, but for those that would hold categories without one. Columns are then matched by name,
  and those the model doesn't know are ignored.
- Without a header the columns are called column_1, column_2, ...; a model whose features are called so
  takes them by name, any other model takes exactly as many columns as it has features, in its order.
- Empty lines are skipped.
- Categories are given by name; empty cells, NA, N/A, NaN, null and ? are missing values.
"""

from __future__ import annotations

import csv
import sys
import zipfile
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from importlib import import_module
from itertools import chain, zip_longest
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dropserve_client.columns import codes, is_missing
from dropserve_client.errors import InputError
from dropserve_client.types import Column, Features

STDIN = "-"
_SEPARATORS = ",;\t"
_KINDS = ".csv, .tsv, .npz or .parquet"


def read_features(source: str, feature_names: Sequence[str], columns: Sequence[Column] = ()) -> Features:
    """What is in a file, for `Client.predict`: an array in the model's order, or a frame.

    Parameters
    ----------
    source : str
        The file's path; "-" reads CSV or TSV from standard input.
    feature_names : sequence of str
        The model's features, in order.
    columns : sequence of Column
        What they hold; empty: numbers, none of which may be missing.

    Raises
    ------
    InputError
        The file can't be read, lacks columns, or a value is missing or not a number.
    """
    kinds = columns or (Column(),) * len(feature_names)
    if source == STDIN:
        return _delimited(iter(sys.stdin), "standard input", None, feature_names, kinds)
    path = Path(source)
    try:
        match path.suffix.lower():
            case ".csv" | ".tsv" as suffix:
                with path.open(encoding="utf-8-sig", newline="") as file:
                    separator = "\t" if suffix == ".tsv" else None
                    return _delimited(iter(file), source, separator, feature_names, kinds)
            case ".npz":
                return _npz(path, source, feature_names)
            case ".parquet":
                return _parquet(path, source, feature_names)
    except OSError as error:
        raise InputError(f"can't read {source}: {error.strerror or error}") from error
    raise InputError(f"{source}: unknown kind of file; {_KINDS} can be read")


def _delimited(
    lines: Iterator[str],
    source: str,
    separator: str | None,
    feature_names: Sequence[str],
    kinds: Sequence[Column],
) -> NDArray[np.float64]:
    with _problems_of(source):
        first = next(lines, "")
        separator = separator or max(_SEPARATORS, key=Counter(first).__getitem__)
        records = [record for record in csv.reader(chain([first], lines), delimiter=separator) if record]
    if not records:
        raise InputError(f"{source} is empty")
    head = [cell.strip() for cell in records[0]]
    if _is_header(head, feature_names, kinds):
        rows = records[1:]
        order = _order(head, feature_names, f"{source} (its first line is a header)")
    else:
        rows, names = records, [f"column_{number}" for number in range(1, len(head) + 1)]
        if set(feature_names) <= set(names):
            order = _order(names, feature_names, source)
        elif len(names) == len(feature_names):
            order = list(range(len(names)))
        else:
            raise InputError(
                f"{source} has no header and {len(names)} columns; without one it must have "
                f"the model's {len(feature_names)} features, in order"
            )
    if not rows:
        raise InputError(f"{source} has no rows below its header")
    for number, row in enumerate(rows, 1):
        if len(row) != len(head):
            raise InputError(
                f"{source}, row {number} has {len(row)} cells, and the first line has {len(head)}"
            )
    read = [
        _values([row[index] for row in rows], kind, name, source)
        for index, kind, name in zip(order, kinds, feature_names, strict=True)
    ]
    return np.stack(read, axis=1)


def _is_header(head: Sequence[str], feature_names: Sequence[str], kinds: Sequence[Column]) -> bool:
    if set(feature_names) <= set(head):
        return True
    numbered = [f"column_{number}" for number in range(1, len(head) + 1)]
    by_number = set(feature_names) <= set(numbered)
    of_categories = {name for name, kind in zip(feature_names, kinds, strict=True) if kind.kind == "category"}
    if by_number:  # what is in columns that the model doesn't know tells nothing
        of_categories |= set(numbered) - set(feature_names)
    places = zip_longest(head, numbered if by_number else feature_names)
    texts = {name for cell, name in places if cell and not (_is_number(cell) or is_missing(cell))}
    return not texts <= of_categories


def _values(cells: list[str], kind: Column, column: str, source: str) -> NDArray[np.float64]:
    """One column's numbers, or the codes of its categories."""
    missing = np.array([is_missing(cell) for cell in cells])
    if kind.accepts_missing:
        cells = ["nan" if gone else cell for cell, gone in zip(cells, missing, strict=True)]
    elif kind.kind == "category" and missing.any():
        row = int(missing.argmax())
        raise InputError(f"{source}, column {column!r}, row {row + 1}: the value is missing")
    if kind.kind == "category":
        return codes(np.array(cells, object), kind)
    return _numbers(cells, column, source, missing & kind.accepts_missing)


def _order(names: Sequence[str], feature_names: Sequence[str], source: str) -> list[int]:
    """Where in `names` the features are."""
    missing = [name for name in feature_names if name not in names]
    if missing:
        more = f" and {len(missing) - 3} more" if len(missing) > 3 else ""
        shown = ", ".join(repr(name) for name in missing[:3])
        raise InputError(f"{source} has no column {shown}{more}, which the model wants")
    counts = Counter(names)
    for name in feature_names:
        if counts[name] > 1:
            raise InputError(f"{source} has {counts[name]} columns {name!r}")
    return [names.index(name) for name in feature_names]


def _numbers(cells: list[str], column: str, source: str, missing: NDArray[np.bool_]) -> NDArray[np.float64]:
    try:
        values = np.array(cells, dtype=np.float64)
    except ValueError:
        row = next(row for row, cell in enumerate(cells) if not _is_number(cell) or not cell.strip())
        fault = f"{cells[row]!r} is not a number" if cells[row].strip() else "the value is missing"
        raise InputError(f"{source}, column {column!r}, row {row + 1}: {fault}") from None
    unusable = np.flatnonzero(~(np.abs(values) <= np.finfo(np.float32).max) & ~missing)
    if unusable.size:
        row = int(unusable[0])
        raise InputError(
            f"{source}, column {column!r}, row {row + 1}: {cells[row]} is not a finite float32 number"
        )
    return values


def _npz(path: Path, source: str, feature_names: Sequence[str]) -> NDArray[Any]:
    try:
        loaded = np.load(path, allow_pickle=False)
    except (ValueError, EOFError, zipfile.BadZipFile) as error:
        # numpy takes anything else for a pickle, and would tell how to trust it.
        raise InputError(f"{source} can't be read as NPZ: it is no archive of arrays") from error
    if not isinstance(loaded, np.lib.npyio.NpzFile):
        raise InputError(f"{source} can't be read as NPZ: it holds a single array, without a name")
    try:
        with loaded as archive:
            names = list(archive.files)
            X: NDArray[Any] | None = archive["X"] if "X" in names else None
            own_names: NDArray[Any] | None = archive["feature_names"] if "feature_names" in names else None
    except (ValueError, EOFError, zipfile.BadZipFile) as error:
        raise InputError(f"{source} can't be read as NPZ: {str(error).splitlines()[0]}") from error
    if X is None:
        raise InputError(f"{source} has no array 'X' [rows, features]; it has: {', '.join(names) or 'none'}")
    if own_names is None:
        return X
    order = _order([str(name) for name in own_names.ravel()], feature_names, source)
    if X.ndim != 2 or X.shape[1] != own_names.size:
        raise InputError(f"{source}: X is {list(X.shape)} and there are {own_names.size} feature_names")
    chosen: NDArray[Any] = X[:, order]
    return chosen


def _parquet(path: Path, source: str, feature_names: Sequence[str]) -> Features:
    read, failure = _parquet_reader()
    try:
        frame = read(path)
    except failure as error:
        raise InputError(f"{source} can't be read as Parquet: {str(error).splitlines()[0]}") from error
    _order(list(getattr(frame, "column_names", frame.columns)), feature_names, source)
    return frame


def _parquet_reader() -> tuple[Any, Any]:
    """A function that reads a file into a frame, and what it raises for one that it can't read."""
    # Neither is a dependency of the client: used where it happens to be installed.
    with suppress(ModuleNotFoundError):
        polars: Any = import_module("polars")
        return polars.read_parquet, polars.exceptions.PolarsError
    with suppress(ModuleNotFoundError):
        parquet: Any = import_module("pyarrow.parquet")
        return parquet.read_table, import_module("pyarrow").ArrowException
    raise InputError(
        "reading Parquet needs polars, which the 'train' extra brings: pip install 'dropserve[train]'"
    )


@contextmanager
def _problems_of(source: str) -> Iterator[None]:
    try:
        yield
    except UnicodeDecodeError as error:
        raise InputError(f"{source} is not UTF-8 text: {error.reason} at byte {error.start}") from error
    except csv.Error as error:
        raise InputError(f"{source} can't be read as a table: {error}") from error


def _is_number(cell: str) -> bool:
    try:
        float(cell or "nan")
    except ValueError:
        return False
    return True
