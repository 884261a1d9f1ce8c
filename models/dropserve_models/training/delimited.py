"""CSV and TSV files: every value read as text, so that a wrong one can be shown as it stands."""

from __future__ import annotations

import csv
import re
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

import polars as pl

from dropserve_models.errors import DataError

_SEPARATORS = ",;\t"
_QUOTED = re.compile(r'"[^"]*"')


def read_delimited(path: Path, *, header: bool) -> pl.DataFrame:
    """Read a CSV (comma, semicolon or tab: whichever its first line has most of) or TSV file.

    Parameters
    ----------
    header : bool
        Whether the first line names the columns; they are column_1, column_2, ... otherwise.

    Returns
    -------
    DataFrame
        Of strings.

    Raises
    ------
    DataError
        Not UTF-8, no rows, a repeated column name, or rows of unequal length.
    """
    with _open(path) as file:
        line = file.readline()
        separator = "\t" if path.suffix.lower() == ".tsv" else _separator(line)
        file.seek(0)
        first = next(_records(file, separator), [])
    if not any(field.strip() for field in first):
        raise DataError(f"{path} is empty, or its first line is")
    names = [field.strip() for field in first] if header else [f"column_{i + 1}" for i in range(len(first))]
    _check_names(names, path)
    try:
        frame = pl.read_csv(path, has_header=header, separator=separator, infer_schema=False)
    except pl.exceptions.NoDataError:
        raise DataError(f"{path} has no rows") from None
    except pl.exceptions.PolarsError as error:
        _refuse_ragged(path, separator, header)
        raise DataError(f"{path} can't be read as a table: {str(error).splitlines()[0]}") from error
    if frame.height == 0:
        raise DataError(f"{path} has no rows below its header" if header else f"{path} has no rows")
    if any(frame[name].null_count() for name in frame.columns):
        _refuse_ragged(path, separator, header)
    frame.columns = names
    return frame


def looks_like_data(names: list[str]) -> bool:
    """Whether what was read as a header is rather a row of numbers."""
    return sum(_is_number(name) for name in names) > len(names) / 2


def _separator(line: str) -> str:
    counts = Counter(_QUOTED.sub("", line))
    return max(_SEPARATORS, key=lambda separator: counts[separator])


def _check_names(names: list[str], path: Path) -> None:
    for index, name in enumerate(names):
        if not name:
            raise DataError(f"{path}: column {index + 1} has no name in the header")
    repeated = [name for name, count in Counter(names).items() if count > 1]
    if repeated:
        hint = "; is the first line data? then --no-header" if looks_like_data(names) else ""
        raise DataError(f"{path}: the column name {repeated[0]!r} occurs more than once; rename one{hint}")


def _refuse_ragged(path: Path, separator: str, header: bool) -> None:
    with _open(path) as file:
        records = _records(file, separator)
        expected = len(next(records))
        for row, record in enumerate(records, 1 if header else 2):
            if len(record) != expected:
                raise DataError(
                    f"{path}, row {row} has {len(record)} fields, the first line has {expected}"
                    if record
                    else f"{path}, row {row} is empty; remove the line"
                )


def _records(file: TextIO, separator: str) -> Iterator[list[str]]:
    try:
        yield from csv.reader(file, delimiter=separator)
    except csv.Error as error:
        raise DataError(f"{file.name} can't be read as a table: {error}") from error


@contextmanager
def _open(path: Path) -> Iterator[TextIO]:
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            yield file
    except UnicodeDecodeError as error:
        raise DataError(f"{path} is not UTF-8 text: {error.reason} at byte {error.start}") from error


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
