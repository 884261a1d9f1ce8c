"""Columns of categories: their names, and the code of every row."""

from __future__ import annotations

import numpy as np
import polars as pl

from dropserve_models.columns import Column, codes, is_missing, number_name
from dropserve_models.errors import DataError
from dropserve_models.training.table import Floats

MOST_CATEGORIES = 2**16
FEW_CATEGORIES = 50
"""So many are taken for categories whatever the number of rows."""


def encode(column: pl.Series, *, named: bool) -> tuple[Floats, tuple[str, ...]]:
    """The codes of a column, NaN for missing values, and the categories, sorted.

    Where every value reads as a number, categories are the numbers: 3, 3.0 and 03 are one.

    Parameters
    ----------
    named : bool
        Whether somebody said that this is a column of categories.

    Raises
    ------
    DataError
        There are too many categories, or, unless it is `named`, hardly one occurs twice.
    """
    values = column.to_list()
    texts = {_name(value) for value in dict.fromkeys(values)} - {None}
    names = sorted(text for text in texts if text is not None)
    numbers = [_number(name) for name in names]
    if None not in numbers:
        names = [number_name(number) for number in sorted({n for n in numbers if n is not None})]
    if len(names) > MOST_CATEGORIES:
        raise DataError(
            f"column {column.name!r} has {len(names)} categories, more than {MOST_CATEGORIES}; "
            "join some of them, or drop the column"
        )
    if not named and len(names) > max(FEW_CATEGORIES, len(values) / 2):
        raise DataError(
            f"column {column.name!r} holds text with {len(names)} different values in {len(values)} rows, "
            "from which little can be learned; drop it, or name it with --categorical"
        )
    found = tuple(dict.fromkeys(names))
    return codes(values, Column("category", found, True)).astype(np.float32), found


def _name(value: object) -> str | None:
    """A value as the text of its category; None where it is missing."""
    if value is None or value != value:
        return None
    if isinstance(value, str):
        text = value.strip()
        return None if is_missing(text) else text
    if isinstance(value, bool):
        return str(value).lower()
    return number_name(value) if isinstance(value, int | float) else str(value)


def _number(text: str) -> float | None:
    try:
        value = float(text)
    except ValueError:
        return None
    return value if np.isfinite(value) else None
