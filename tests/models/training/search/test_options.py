from __future__ import annotations

import math
from typing import Any

import pytest

from dropserve_models.errors import ConfigError
from dropserve_models.training.search.ground import Pace
from dropserve_models.training.search.options import Budget, SearchOptions


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "needs a bound"),
        ({"seconds": 0.0}, "can't take 0 seconds"),
        ({"seconds": math.nan}, "can't take nan seconds"),
        ({"seconds": math.inf}, "can't take inf seconds"),
        ({"trials": 0}, "0 trials finds nothing"),
    ],
)
def test_bounds_that_are_none(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        SearchOptions(**options)


def test_a_budget_of_time() -> None:
    clock = Clock()
    budget = Budget(SearchOptions(seconds=60.0), clock)
    clock.now += 10.0
    assert budget.spent() == 10.0
    assert budget.deadline(0.5) == 130.0
    assert budget.left(0.5) == 20.0
    assert budget.trials(1.0, 500) > 100_000
    assert budget.bound == "time"


def test_a_budget_of_trials() -> None:
    budget = Budget(SearchOptions(trials=9))
    assert budget.deadline() == math.inf
    assert [budget.trials(0.5, 0), budget.trials(1.0, 5), budget.trials(1.0, 12)] == [5, 4, 0]
    assert budget.bound == "trials"


@pytest.mark.parametrize(("spent", "bound"), [(10.0, "trials"), (59.0, "time")])
def test_the_bound_that_comes_first(spent: float, bound: str) -> None:
    clock = Clock()
    budget = Budget(SearchOptions(seconds=60.0, trials=5), clock)
    clock.now += spent
    assert budget.bound == bound


def test_as_many_go_on_as_will_be_done_in_time() -> None:
    clock = Clock()
    pace = Pace(epochs=100, deadline=150.0, clock=clock)
    trials = 10
    for done in range(1, 101):
        clock.now += 0.1 * trials  # a tenth of a second an epoch of each: 10 seconds, and 50 are there
        trials = pace(done, trials)
        if done in (1, 2):
            assert trials == 10  # not judged by the first epochs
    assert 4 <= trials <= 5
    assert clock.now <= 150.0
    assert pace.a_trial == pytest.approx(10.0)


def test_nobody_leaves_without_a_deadline_or_with_time_to_spare() -> None:
    clock = Clock()
    for deadline in (math.inf, 1e9):
        pace = Pace(100, deadline, clock)
        for done in range(1, 101):
            clock.now += 1.0
            assert pace(done, 7) == 7


def test_everybody_leaves_when_time_is_over() -> None:
    clock = Clock()
    pace = Pace(100, 101.0, clock)
    clock.now = 102.0
    assert pace(1, 3) == 0
