"""Which rows to learn from and which to validate on."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dropserve_models.errors import DataError
from dropserve_models.training.task import Goal

FEWEST_ROWS = 2


@dataclass(frozen=True, slots=True)
class Split:
    """Row numbers, ascending; every row is in one of the two."""

    training: NDArray[np.intp]
    validation: NDArray[np.intp]


def split_rows(goal: Goal, fraction: float, random: np.random.Generator) -> Split:
    """Hold out about `fraction` of the rows, of each class for classifiers.

    Raises
    ------
    DataError
        Fewer than 2 rows would be left on either side.
    """
    groups = (
        [np.flatnonzero(goal.values == number) for number in range(len(goal.output_names))]
        if goal.is_classification
        else [np.arange(len(goal.values))]
    )
    least = 1 if goal.is_classification else FEWEST_ROWS
    if sum(len(group) for group in groups) < 2 * FEWEST_ROWS:
        raise DataError(
            f"{len(goal.values)} rows are too few to hold out a validation part: "
            f"at least {2 * FEWEST_ROWS} are needed"
        )
    held_out = []
    for group in groups:
        count = min(max(round(fraction * len(group)), least), len(group) - least)
        held_out.append(random.permutation(group)[:count])
    validation = np.sort(np.concatenate(held_out))
    return Split(np.setdiff1d(np.arange(len(goal.values)), validation), validation)
