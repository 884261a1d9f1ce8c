"""Large requests, cut into slices."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from time import perf_counter
from typing import Any

import numpy as np
import pytest

from dropserve_models.errors import InputError
from dropserve_models.prediction import MonteCarloOptions
from dropserve_server.errors import DeadlineExpired
from dropserve_server.job import PredictionJob
from dropserve_server.large import FIRST_ROWS, SLICE_ROWS, LargeJob, Slice
from support.fake_model import FakeModel
from support.jobs import NEVER, answer_of, job, serve, some_rows


def run(scenario: Callable[[], None]) -> None:
    async def life() -> None:
        scenario()

    asyncio.run(life())


def compute_all(large: LargeJob, slices: list[Slice] | None = None) -> list[PredictionJob]:
    over: list[PredictionJob] = []
    while (part := large.take()) is not None:
        part.compute()
        over += part.over
        if slices is not None:
            slices.append(part)
    return over


def test_slices_take_about_the_time_they_should_and_are_put_together_in_order() -> None:
    def scenario() -> None:
        model = FakeModel()
        served = serve(model)
        served.costs.deterministic.record(100, 0.1)
        asked = job(served, 250)
        large = LargeJob(asked, seconds=0.1)
        slices: list[Slice] = []
        assert compute_all(large, slices) == [asked]
        assert [len(features) for features, _ in model.calls] == [96, 96, 58]
        spent = sum(each.seconds for each in slices)
        assert [each.whole_seconds for each in slices] == [0, 0, pytest.approx(spent)]
        assert asked.result is not None
        np.testing.assert_array_equal(asked.result.mean, answer_of(asked.features))
        assert asked.queued <= asked.begun < asked.finished
        assert large.take() is None

    run(scenario)


def test_the_first_slice_of_an_unknown_model_is_small_and_none_is_too_small() -> None:
    def scenario() -> None:
        model = FakeModel()
        served = serve(model)
        unknown = LargeJob(job(served, 100), seconds=1.0).take()
        assert unknown is not None
        assert unknown.rows == FIRST_ROWS
        served.costs.deterministic.record(1, 100.0)
        slow = LargeJob(job(served, 100), seconds=0.001).take()
        assert slow is not None
        assert slow.rows == SLICE_ROWS

    run(scenario)


def test_slices_of_an_unseeded_request_share_their_masks_and_no_two_requests_do() -> None:
    def scenario() -> None:
        model = FakeModel()
        served = serve(model)
        asked = [job(served, 100, MonteCarloOptions(passes=10)) for _ in range(2)]
        for each in asked:
            compute_all(LargeJob(each, seconds=1.0))
        assert [options for _, options in model.calls] == [MonteCarloOptions(passes=10)] * 4
        wholes = [whole for whole in model.wholes if whole is not None]
        assert [whole.rows for whole in wholes] == [100] * 4
        assert [wholes.count(whole) for whole in wholes] == [2, 2, 2, 2]
        assert asked[0].result is not None
        assert asked[0].result.passes == 10

    run(scenario)


def test_a_seed_is_kept() -> None:
    def scenario() -> None:
        model = FakeModel()
        compute_all(LargeJob(job(serve(model), 100, MonteCarloOptions(passes=10, seed=5)), seconds=1.0))
        assert {options.seed for _, options in model.calls if options is not None} == {5}
        assert set(model.wholes) == {None}

    run(scenario)


def test_once_its_caller_has_left_no_further_slice_is_computed() -> None:
    def scenario() -> None:
        model = FakeModel()
        asked = job(serve(model), 1000)
        large = LargeJob(asked, seconds=1.0)
        first = large.take()
        assert first is not None
        first.compute()
        asked.outcome.cancel()
        assert compute_all(large) == [asked]
        assert [len(features) for features, _ in model.calls] == [FIRST_ROWS]
        assert (asked.result, asked.error) == (None, None)

    run(scenario)


@pytest.mark.parametrize("passed", [True, False])
def test_a_deadline_ends_it_between_two_slices(passed: bool) -> None:
    def scenario() -> None:
        asked = job(serve(FakeModel()), 200)
        large = LargeJob(asked, seconds=1.0)
        first = large.take()
        assert first is not None
        first.compute()
        asked.deadline = perf_counter() if passed else NEVER
        compute_all(large)
        assert isinstance(asked.error, DeadlineExpired) == passed
        assert (asked.result is None) == passed

    run(scenario)


@pytest.mark.parametrize(
    ("rows", "waited", "expected", "left", "begun"),
    [
        (20, 100.0, 60.0, 50.0, False),
        (20, 100.0, 40.0, 50.0, True),
        (20, 1.0, 60.0, 50.0, True),  # it came to an idle server, which may have become faster
        (200, 100.0, 60.0, 50.0, True),  # several threads may share it
        (20, 100.0, 0.0, 0.0, False),
        (200, 100.0, 0.0, 0.0, False),
    ],
)
def test_what_has_waited_until_too_little_time_is_left_is_not_begun(
    rows: int, waited: float, expected: float, left: float, begun: bool
) -> None:
    def scenario() -> None:
        model = FakeModel()
        now = perf_counter()
        asked = job(serve(model), rows, MonteCarloOptions(passes=1000), deadline=now + left)
        asked.queued = asked.begun = now - waited
        asked.expected_seconds = expected
        assert compute_all(LargeJob(asked, seconds=0.01)) == [asked]
        assert bool(model.calls) == begun
        assert isinstance(asked.error, DeadlineExpired) == (not begun)

    run(scenario)


@pytest.mark.parametrize(("seconds", "turns"), [(0.0, 6), (60.0, 1)])
def test_passes_pause_when_the_time_is_up(seconds: float, turns: int) -> None:
    def scenario() -> None:
        model = FakeModel()
        model.pauses = 5
        served = serve(model)
        options = MonteCarloOptions(passes=1000)
        asked = job(served, 40, options)
        large = LargeJob(asked, seconds)
        slices: list[Slice] = []
        assert compute_all(large, slices) == [asked]
        assert len(slices) == turns
        assert len({id(each) for each in slices}) == 1
        assert slices[-1].seconds == pytest.approx(slices[-1].whole_seconds)
        # All rows at once, and without a seed that nobody has named: the answer is that of one not cut.
        assert [len(features) for features, _ in model.calls] == [40]
        assert model.calls[0][1] == options
        assert asked.result is not None
        assert asked.queued <= asked.begun < asked.finished

    run(scenario)


@pytest.mark.parametrize("kept", [{"quantiles": (0.5,)}, {"return_samples": True}])
def test_what_keeps_every_pass_does_not_pause_and_hold_them_meanwhile(kept: dict[str, Any]) -> None:
    def scenario() -> None:
        model = FakeModel()
        model.pauses = 5
        asked = job(serve(model), 100, MonteCarloOptions(passes=1000, **kept))
        slices: list[Slice] = []
        assert compute_all(LargeJob(asked, seconds=0.0), slices) == [asked]
        assert [each.rows for each in slices] == [FIRST_ROWS, 100 - FIRST_ROWS]
        assert len({id(each) for each in slices}) == 2

    run(scenario)


def test_slices_of_rows_pause_too_and_paused_ones_are_gone_on_with_first() -> None:
    def scenario() -> None:
        model = FakeModel()
        model.pauses = 1
        asked = job(serve(model), 100, MonteCarloOptions(passes=1000))
        large = LargeJob(asked, seconds=0.0)
        one, two = large.take(), large.take()
        assert one is not None
        assert two is not None
        assert not one.compute()
        assert large.take() is one
        assert one.compute()
        assert not two.compute()
        assert compute_all(large) == [asked]
        assert asked.result is not None
        np.testing.assert_array_equal(asked.result.mean, answer_of(asked.features))
        assert len({options for _, options in model.calls}) == 1

    run(scenario)


@pytest.mark.parametrize("leaves", [True, False])
def test_no_further_pass_is_computed_in_vain(leaves: bool) -> None:
    """The caller has left, or its deadline has passed, while its request pauses."""

    def scenario() -> None:
        model = FakeModel()
        model.pauses = 100
        asked = job(serve(model), 20, MonteCarloOptions(passes=1000))
        large = LargeJob(asked, seconds=0.0)
        part = large.take()
        assert part is not None
        assert not part.compute()
        if leaves:
            asked.outcome.cancel()
        else:
            asked.deadline = perf_counter()
        assert compute_all(large) == [asked]
        assert (model.steps_taken, model.calls) == (1, [])
        assert asked.result is None
        assert isinstance(asked.error, DeadlineExpired) == (not leaves)
        assert not asked.served.costs.monte_carlo.unit, "nobody learns from what was not finished"

    run(scenario)


def test_a_wrong_row_is_named_as_the_caller_counts_it() -> None:
    def scenario() -> None:
        features = some_rows(200)
        features[150, 0] = np.nan
        asked = job(serve(FakeModel()), features)
        assert compute_all(LargeJob(asked, seconds=1.0)) == [asked]
        assert isinstance(asked.error, InputError)
        assert "inputs[150, 0] (a) is nan" in str(asked.error)

    run(scenario)


def test_what_the_model_refuses_says_from_where_it_counts() -> None:
    def scenario() -> None:
        model = FakeModel()
        model.error = InputError("inputs", "row 3: no")
        asked = job(serve(model), 200)
        compute_all(LargeJob(asked, seconds=1.0))
        assert str(asked.error) == "counting from row 0, row 3: no"

        whole = job(serve(model), 20, MonteCarloOptions(passes=10))
        compute_all(LargeJob(whole, seconds=1.0))
        assert str(whole.error) == "row 3: no"

    run(scenario)


def test_slices_computed_at_the_same_time_make_one_answer() -> None:
    def scenario() -> None:
        model = FakeModel()
        asked = job(serve(model), 2000)
        large = LargeJob(asked, seconds=1.0)
        over: list[PredictionJob] = []
        threads = [threading.Thread(target=lambda: over.extend(compute_all(large))) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(30)
        assert over == [asked]
        assert asked.result is not None
        np.testing.assert_array_equal(asked.result.mean, answer_of(asked.features))

    run(scenario)


def test_what_a_large_request_kept_a_processor_busy_is_that_of_its_slices() -> None:
    def scenario() -> None:
        served = serve(FakeModel())
        served.costs.monte_carlo.record(1000, 0.1)
        slices: list[Slice] = []
        compute_all(LargeJob(job(served, 250, MonteCarloOptions(passes=10)), seconds=0.1), slices)
        assert len(slices) > 1
        assert slices[-1].whole_busy == pytest.approx(sum(each.busy for each in slices))
        assert all(0 < each.busy <= each.seconds * 1.1 for each in slices)

    run(scenario)
