"""Columns named by whoever trains, by name or by number."""

from __future__ import annotations

from collections.abc import Sequence

from dropserve_models.errors import DataError
from dropserve_models.training.table import listed


def find_column(given: str, names: Sequence[str]) -> str | None:
    """The column that is meant by a name or a number (1 is the first, -1 the last); None: there is none."""
    if given in names:
        return given
    try:
        number = int(given)
    except ValueError:
        return None
    if number == 0 or not -len(names) <= number <= len(names):
        return None
    return names[number - 1 if number > 0 else number]


def one_by_one(given: Sequence[str], names: Sequence[str]) -> list[str]:
    """What was given, taken apart at commas unless the whole is a column."""
    parts: list[str] = []
    for text in given:
        whole = find_column(text, names) is not None
        parts += [text] if whole else [part.strip() for part in text.split(",") if part.strip()]
    return parts


def resolve_categorical(given: Sequence[str], names: Sequence[str], source: str) -> tuple[str, ...]:
    """The names of the columns that are to be categorical; commas separate them.

    Raises
    ------
    DataError
        There is no such column.
    """
    found = []
    for column in one_by_one(given, names):
        name = find_column(column, names)
        if name is None:
            raise DataError(f"{source} has no column {column!r} to be categorical; it has: {listed(names)}")
        found.append(name)
    return tuple(found)
