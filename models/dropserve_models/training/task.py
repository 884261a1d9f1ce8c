"""What is to be learned: recognised from the target, or given; targets encoded accordingly."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from dropserve_models.errors import DataError
from dropserve_models.prediction import Task
from dropserve_models.training.table import Doubles, Table, Target

MOST_NUMBERED_CLASSES = 20

# Between these a target's standard deviation, its square and the exported noise variance fit float32.
SMALLEST_SPREAD, LARGEST_TARGET = 1e-12, 1e12

Classes: TypeAlias = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Goal:
    """A task and its targets as the network learns them.

    Attributes
    ----------
    task : {"regression", "binary", "multiclass"}
    output_names : tuple of str
        Target names for regression, class labels for classifiers.
    reason : str
        How the task was told.
    values : ndarray
        Numbers [rows, targets] for regression, class numbers [rows] for classifiers.
    """

    task: Task
    output_names: tuple[str, ...]
    reason: str
    values: Doubles | Classes

    @property
    def is_classification(self) -> bool:
        """Whether the outputs are classes."""
        return self.task != "regression"


def recognise(table: Table, task: Literal["auto"] | Task = "auto") -> Goal:
    """Tell the task from the target column, unless it is given, and encode the targets.

    Several targets are regression. Of a single one, text and booleans are classes; so are numbers with
    two distinct values, and integers that count 0..K-1 or 1..K (K up to 20) with every value at least
    twice. All other numbers are regression.

    Raises
    ------
    DataError
        The target does not fit the task, has a single value, or a class with a single row.
    """
    if len(table.targets) > 1:
        if task not in ("auto", "regression"):
            raise DataError(f"{len(table.targets)} targets can only be regressed on, not a {task} task")
        return _regression(table.targets, "it has several targets")
    target = table.targets[0]
    if task == "regression":
        return _regression(table.targets, "as asked")
    if task == "auto":
        reason = _why_classes(target)
        if reason is None:
            return _regression(table.targets, f"{target.name!r} holds numbers")
        return _classification(target, None, reason)
    return _classification(target, task, "as asked")


def _why_classes(target: Target) -> str | None:
    name = repr(target.name)
    if target.labels is not None:
        return f"{name} has named classes"
    if target.is_text:
        return f"{name} holds text"
    values, counts = np.unique(target.values, return_counts=True)
    if len(values) <= 2:
        return f"{name} has {len(values)} distinct values"
    counts_up = values[0] in (0.0, 1.0) and np.array_equal(values, values[0] + np.arange(len(values)))
    if counts_up and len(values) <= MOST_NUMBERED_CLASSES and counts.min() >= 2:
        return f"{name} counts {values[0]:.0f} to {values[-1]:.0f}"
    return None


def _regression(targets: tuple[Target, ...], reason: str) -> Goal:
    for target in targets:
        if target.is_text:
            raise DataError(
                f"column {target.name!r} holds text ({target.values[0]!s}): it can't be regressed on"
            )
        if np.ptp(target.values) == 0.0:
            raise DataError(
                f"column {target.name!r} is {target.values[0]:g} in every row: there is nothing to learn"
            )
        if np.abs(target.values).max() > LARGEST_TARGET or target.values.std() < SMALLEST_SPREAD:
            raise DataError(
                f"column {target.name!r} has a mean of {target.values.mean():.3g} and a standard deviation "
                f"of {target.values.std():.3g}: beyond what float32 answers can hold; rescale it"
            )
    values = np.stack([target.values for target in targets], axis=1).astype(np.float64)
    return Goal("regression", tuple(target.name for target in targets), reason, values)


def _classification(target: Target, task: Task | None, reason: str) -> Goal:
    found, numbers, counts = np.unique(target.values, return_inverse=True, return_counts=True)
    labels = class_labels(target, found)
    if len(labels) == 1:
        raise DataError(f"column {target.name!r} has a single class ({labels[0]}): there is nothing to learn")
    if task == "binary" and len(labels) != 2:
        raise DataError(f"column {target.name!r} has {len(labels)} classes: a binary task has 2")
    if counts.min() < 2:
        lonely = int(counts.argmin())
        row = int(np.flatnonzero(numbers == lonely)[0])
        hint = "" if target.is_text else ", or ask for --task regression"
        raise DataError(
            f"class {labels[lonely]} of column {target.name!r} has a single row ({row + 1}): "
            f"a class needs one to learn from and one to validate on; remove it{hint}"
        )
    resolved: Task = "binary" if len(labels) == 2 and task != "multiclass" else "multiclass"
    return Goal(resolved, labels, reason, numbers.astype(np.int64))


def class_labels(target: Target, found: NDArray[np.generic]) -> tuple[str, ...]:
    """How a model names the classes that these values of its target are."""
    if target.labels is not None:
        return tuple(target.labels[int(value)] for value in found)
    if target.is_text:
        return tuple(str(value) for value in found)
    return tuple(f"{value:.0f}" if value == int(value) else f"{value!r}" for value in found.tolist())
