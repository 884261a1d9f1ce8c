from __future__ import annotations

from typing import Any, Literal

import numpy as np
import pytest

from dropserve_models.errors import DataError
from dropserve_models.prediction import Task
from dropserve_models.training.table import Table, Target
from dropserve_models.training.task import Goal, recognise

Asked = Literal["auto"] | Task


def table(*columns: list[Any], labels: tuple[str, ...] | None = None) -> Table:
    targets = tuple(
        Target(f"y{i}", np.array(column) if isinstance(column[0], str) else np.array(column, float), labels)
        for i, column in enumerate(columns)
    )
    return Table(("x",), np.zeros((len(columns[0]), 1), np.float32), targets)


def recognised(*columns: list[Any], task: Asked = "auto") -> Goal:
    return recognise(table(*columns), task)


@pytest.mark.parametrize(
    ("column", "task", "names"),
    [
        (["R", "M", "M", "R"], "binary", ("M", "R")),
        (["False", "True", "True", "False"], "binary", ("False", "True")),
        (["b", "a", "c", "a", "b", "c"], "multiclass", ("a", "b", "c")),
        ([0, 1, 0, 1], "binary", ("0", "1")),
        ([-1, 1, 1, -1], "binary", ("-1", "1")),
        ([0.5, 1.5, 0.5, 1.5], "binary", ("0.5", "1.5")),
        ([0, 1, 2, 0, 1, 2], "multiclass", ("0", "1", "2")),
        ([3, 2, 1, 3, 2, 1], "multiclass", ("1", "2", "3")),
        ([0, 1, 3, 0, 1, 3], "regression", ("y0",)),  # does not count up
        ([2, 3, 4, 2, 3, 4], "regression", ("y0",)),  # starts at neither 0 nor 1
        ([0, 1, 2, 0, 1, 1], "regression", ("y0",)),  # one value occurs once
        ([0.5, 1.5, 2.5, 0.5], "regression", ("y0",)),
        (list(range(20)) * 2, "multiclass", tuple(str(i) for i in range(20))),
        (list(range(21)) * 2, "regression", ("y0",)),
    ],
)
def test_what_is_recognised(column: list[Any], task: Task, names: tuple[str, ...]) -> None:
    goal = recognised(column)
    assert (goal.task, goal.output_names) == (task, names)
    assert "y0" in goal.reason
    if goal.is_classification:
        assert goal.values.dtype == np.int64
        labels = [names[number] for number in goal.values]
        assert labels == [str(value) for value in column]
    else:
        np.testing.assert_array_equal(goal.values, np.array(column, float)[:, None])


def test_named_classes_keep_their_numbers() -> None:
    goal = recognise(table([1, 0, 1, 0], labels=("malignant", "benign")))
    assert goal.output_names == ("malignant", "benign")
    assert goal.values.tolist() == [1, 0, 1, 0]


def test_several_targets_are_regression() -> None:
    goal = recognised([0, 1, 0, 1], [5, 6, 7, 8])
    assert (goal.task, goal.output_names) == ("regression", ("y0", "y1"))
    assert goal.values.shape == (4, 2)


def test_asked_for() -> None:
    assert recognised([0, 1, 0, 1], task="regression").task == "regression"
    assert recognised([3, 7, 9, 3, 7, 9], task="multiclass").output_names == ("3", "7", "9")
    assert recognised([0, 1, 0, 1], task="multiclass").task == "multiclass"
    assert recognised(["a", "b", "a", "b"], task="binary").task == "binary"


@pytest.mark.parametrize(
    ("columns", "task", "message"),
    [
        ([["a", "a", "a"]], "auto", "'y0' has a single class (a)"),
        ([[1, 1, 1]], "auto", "'y0' has a single class (1)"),
        ([[2.5, 2.5]], "regression", "'y0' is 2.5 in every row"),
        ([["a", "b", "b"]], "auto", "class a of column 'y0' has a single row (1)"),
        ([[1, 1, 4, 1]], "auto", "class 4 of column 'y0' has a single row (3)"),
        ([["a", "b", "c"] * 2], "binary", "has 3 classes: a binary task has 2"),
        ([["a", "b"]], "regression", "'y0' holds text (a): it can't be regressed on"),
        ([[1, 2], [3, 4]], "binary", "2 targets can only be regressed on"),
        ([[1, 2], ["a", "b"]], "auto", "'y1' holds text"),
        ([[1e13, 2e13, 5e13]], "auto", "rescale it"),
        ([[1e-13, 2e-13, 5e-13]], "auto", "rescale it"),
    ],
)
def test_what_can_not_be_learned(columns: list[list[Any]], task: Asked, message: str) -> None:
    with pytest.raises(DataError) as caught:
        recognised(*columns, task=task)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
