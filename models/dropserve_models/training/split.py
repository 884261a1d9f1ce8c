"""Which rows to learn from and which to validate on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from dropserve_models.errors import DataError
from dropserve_models.training.task import Goal

FEWEST_ROWS = 2

Rows: TypeAlias = NDArray[np.intp]
"""Row numbers."""


@dataclass(frozen=True, slots=True)
class Split:
    """Row numbers, ascending; no row is in both."""

    training: NDArray[np.intp]
    validation: NDArray[np.intp]


def fewest_rows(fraction: float) -> int:
    """How many rows `split_rows` needs to hold out such a fraction."""
    return FEWEST_ROWS * (2 if fraction > 0.0 else 1)


def split_rows(
    goal: Goal, fraction: float, random: np.random.Generator, rows: NDArray[np.intp] | None = None
) -> Split:
    """Hold out about `fraction` of the rows, of each class for classifiers; none where it is 0.

    Parameters
    ----------
    rows : ndarray, optional
        The rows to share out; all by default.

    Raises
    ------
    DataError
        Fewer than 2 rows would be left on either side.
    """
    rows = np.arange(len(goal.values)) if rows is None else rows
    if len(rows) < fewest_rows(fraction):
        purpose = "hold out a validation part" if fraction > 0.0 else "learn from"
        raise DataError(
            f"{len(rows)} rows are too few to {purpose}: at least {fewest_rows(fraction)} are needed"
        )
    if fraction == 0.0:
        return Split(np.sort(rows), rows[:0])
    groups = (
        [rows[goal.values[rows] == number] for number in range(len(goal.output_names))]
        if goal.is_classification
        else [rows]
    )
    least = 1 if goal.is_classification else FEWEST_ROWS
    held_out = []
    for group in groups:
        count = max(min(max(round(fraction * len(group)), least), len(group) - least), 0)
        held_out.append(random.permutation(group)[:count])
    validation = np.sort(np.concatenate(held_out))
    return Split(np.setdiff1d(rows, validation), validation)
