from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dropserve_models.errors import DataError
from dropserve_models.training.split import split_rows
from dropserve_models.training.task import Goal


def classes(*counts: int) -> Goal:
    values = np.repeat(np.arange(len(counts)), counts)
    return Goal(
        "multiclass", tuple(map(str, range(len(counts)))), "", np.random.default_rng(1).permutation(values)
    )


def numbers(rows: int) -> Goal:
    return Goal("regression", ("y",), "", np.zeros((rows, 1)))


@given(counts=st.lists(st.integers(2, 60), min_size=2, max_size=6), fraction=st.floats(0.01, 0.99))
def test_every_class_keeps_its_share(counts: list[int], fraction: float) -> None:
    goal = classes(*counts)
    split = split_rows(goal, fraction, np.random.default_rng(0))
    assert sorted([*split.training, *split.validation]) == list(range(sum(counts)))
    assert np.all(np.diff(split.training) > 0)
    held_out = np.bincount(goal.values[split.validation].astype(int), minlength=len(counts))
    for count, held in zip(counts, held_out, strict=True):
        assert held == min(max(round(fraction * count), 1), count - 1)


def test_regression_rows_are_drawn_at_random() -> None:
    splits = [split_rows(numbers(100), 0.2, np.random.default_rng(seed)) for seed in (0, 0, 1)]
    assert [len(split.validation) for split in splits] == [20, 20, 20]
    np.testing.assert_array_equal(splits[0].validation, splits[1].validation)
    assert not np.array_equal(splits[0].validation, splits[2].validation)
    assert splits[0].validation.max() > 50


@pytest.mark.parametrize("rows", [1, 2, 3])
def test_too_few_rows(rows: int) -> None:
    with pytest.raises(DataError, match=f"{rows} rows are too few to hold out a validation part: at least 4"):
        split_rows(numbers(rows), 0.2, np.random.default_rng(0))


@pytest.mark.parametrize("goal", [numbers(4), classes(2, 2)])
@pytest.mark.parametrize("fraction", [0.01, 0.99])
def test_as_few_rows_as_can_be(goal: Goal, fraction: float) -> None:
    split = split_rows(goal, fraction, np.random.default_rng(0))
    assert (len(split.training), len(split.validation)) == (2, 2)
