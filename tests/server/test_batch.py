"""Requests computed together: each gets its own answer, or its own error."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from time import perf_counter, sleep

import numpy as np
import pytest

from dropserve_models.columns import Column
from dropserve_models.errors import InputError
from dropserve_models.inference.whole import Whole
from dropserve_models.prediction import FloatArray, MonteCarloOptions, Prediction
from dropserve_server.batch import Batch, check_features
from dropserve_server.errors import DeadlineExpired
from support.fake_model import FAKE_INFO, FakeModel
from support.jobs import answer_of, job, serve, some_rows

MODES = [None, MonteCarloOptions(passes=5)]


class Picky(FakeModel):
    """Refuses rows that begin with 666, as a model refuses those for which its answer is not finite."""

    def run(self, features: FloatArray, monte_carlo: MonteCarloOptions | None = None) -> Prediction:
        if (features[:, 0] == 666).any():
            raise InputError("inputs", "row 0: the model's answer is not a finite number")
        return super().run(features, monte_carlo)


class Overflowing(FakeModel):
    """Computed together, leaves an infinity for the caller to find; alone, refuses it."""

    def run(self, features: FloatArray, monte_carlo: MonteCarloOptions | None = None) -> Prediction:
        if len(features) == 1 and features[0, 0] == 666:
            raise InputError("inputs", "row 0: the model's answer is not a finite number")
        prediction = super().run(features, monte_carlo)
        prediction.mean[features[:, 0] == 666] = np.inf
        return prediction


def run(scenario: Callable[[], None]) -> None:
    async def life() -> None:
        scenario()

    asyncio.run(life())


@pytest.mark.parametrize("options", MODES)
def test_each_gets_the_answer_to_its_rows(options: MonteCarloOptions | None) -> None:
    def scenario() -> None:
        model = FakeModel()
        served = serve(model)
        jobs = [job(served, some_rows(count, first), options) for count, first in ((1, 7), (3, 50), (2, -4))]
        batch = Batch(jobs)
        batch.compute()
        assert len(model.calls) == 1
        assert (batch.rows, batch.work) == (6, 6 * (options.passes if options else 1))
        for each in jobs:
            assert each.result is not None
            np.testing.assert_array_equal(each.result.mean, answer_of(each.features))
            assert each.queued <= each.begun < each.finished

    run(scenario)


@pytest.mark.parametrize("options", MODES)
def test_one_that_is_refused_harms_no_other(options: MonteCarloOptions | None) -> None:
    def scenario() -> None:
        served = serve(Picky())
        not_a_number = some_rows(2)
        not_a_number[1, 2] = np.nan
        jobs = [
            job(served, rows, options)
            for rows in (some_rows(1), not_a_number, some_rows(1, 666.0), some_rows(3, 9.0))
        ]
        batch = Batch(jobs)
        batch.compute()
        for good in (jobs[0], jobs[3]):
            assert good.result is not None
            np.testing.assert_array_equal(good.result.mean, answer_of(good.features))
        assert isinstance(jobs[1].error, InputError)
        assert batch.rows == 4, "what failed is not what was computed in that time"
        assert "inputs[1, 2] (c) is nan" in str(jobs[1].error)
        assert "answer is not a finite number" in str(jobs[2].error)

    run(scenario)


def test_an_answer_that_is_not_finite_is_found_among_those_computed_together() -> None:
    def scenario() -> None:
        served, options = serve(Overflowing()), MonteCarloOptions(passes=5)
        jobs = [job(served, some_rows(1, first), options) for first in (1.0, 666.0, 3.0)]
        Batch(jobs).compute()
        assert [each.error is None for each in jobs] == [True, False, True]

    run(scenario)


def test_requests_that_cannot_be_joined_are_computed_one_by_one() -> None:
    def scenario() -> None:
        model = FakeModel()
        model.together = lambda rows, options: None if rows > 1 else options  # type: ignore[method-assign]
        served, options = serve(model), MonteCarloOptions(passes=5)
        jobs = [job(served, rows, options) for rows in (1, 2, 1)]
        Batch(jobs).compute()
        assert sorted(len(features) for features, _ in model.calls) == [2, 2]  # 1 + 1 together, and 2 alone
        for each in jobs:
            assert each.result is not None
            np.testing.assert_array_equal(each.result.mean, answer_of(each.features))

    run(scenario)


def test_those_whose_caller_left_or_whose_deadline_passed_are_not_computed() -> None:
    def scenario() -> None:
        model = FakeModel()
        served = serve(model)
        left, late, good = job(served, 2), job(served, 3, deadline=perf_counter()), job(served, 4)
        left.outcome.cancel()
        batch = Batch([left, late, good])
        batch.compute()
        assert [len(features) for features, _ in model.calls] == [4]
        assert batch.rows == 4
        assert (left.result, left.error) == (None, None)
        assert isinstance(late.error, DeadlineExpired)
        assert good.result is not None

    run(scenario)


def test_who_can_not_be_done_in_time_is_not_begun_unless_it_came_to_an_idle_server() -> None:
    def scenario() -> None:
        model = FakeModel()
        served = serve(model)
        now = perf_counter()
        hopeless, tried, hopeful = (job(served, rows, deadline=now + 50) for rows in (1, 2, 4))
        for each in (hopeless, tried, hopeful):
            each.expected_seconds = 60.0
        hopeless.queued -= 100
        hopeful.queued -= 100
        hopeful.expected_seconds = 40.0
        Batch([hopeless, tried, hopeful]).compute()
        assert [len(features) for features, _ in model.calls] == [6]
        assert isinstance(hopeless.error, DeadlineExpired)
        assert "too little time was left" in str(hopeless.error)
        assert tried.result is not None
        assert hopeful.result is not None

    run(scenario)


@pytest.mark.parametrize("leaves", [True, False])
def test_no_further_pass_is_computed_in_vain(leaves: bool) -> None:
    """What keeps every pass has no pause for others, but ends with its caller's patience."""

    class Long(FakeModel):
        def steps(
            self, features: FloatArray, monte_carlo: MonteCarloOptions, whole: Whole | None = None
        ) -> Iterator[Prediction | None]:
            for step in super().steps(features, monte_carlo, whole):
                if self.steps_taken == 3 and leaves:
                    asked.outcome.cancel()
                elif self.steps_taken == 3:
                    asked.deadline = perf_counter()
                yield step

    def scenario() -> None:
        batch = Batch([asked])
        batch.compute()
        assert (model.steps_taken, model.calls, asked.result) == (3, [], None)
        assert isinstance(asked.error, DeadlineExpired) == (not leaves)
        assert (batch.rows, batch.work) == (0, 0), "nobody learns from what was not finished"

    model = Long()
    model.pauses = 100
    asked = job(serve(model), 40, MonteCarloOptions(passes=10_000, quantiles=(0.5,)))
    run(scenario)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_what_is_no_number_is_refused_with_its_place(value: float) -> None:
    features = some_rows(4)
    features[2, 1] = features[3, 0] = value
    with pytest.raises(InputError, match=rf"inputs\[12, 1\] \(b\) is {value}; .* finite") as refusal:
        check_features(features, serve(FakeModel()), first_row=10)
    assert refusal.value.field == "inputs"


def test_large_finite_numbers_pass() -> None:
    check_features(np.full((3, 3), np.finfo(np.float32).max), serve(FakeModel()))


def test_missing_values_pass_where_the_model_accepts_them() -> None:
    columns = (Column(), Column("number", (), True), Column("category", ("u",), True))
    served = serve(FakeModel(replace(FAKE_INFO, columns=columns)))
    features = some_rows(4)
    features[1, 1] = features[2, 2] = np.nan
    check_features(features, served)
    for column, value, message in (
        (0, np.nan, "(a) is nan; the column accepts no missing"),
        (1, np.inf, "finite"),
    ):
        wrong = features.copy()
        wrong[3, column] = value
        with pytest.raises(InputError, match=re.escape(message)):
            check_features(wrong, served)


@pytest.mark.parametrize("options", MODES)
def test_rows_with_missing_values_are_computed_together_with_others(
    options: MonteCarloOptions | None,
) -> None:
    def scenario() -> None:
        model = FakeModel(replace(FAKE_INFO, columns=(Column("number", (), True), Column(), Column())))
        served = serve(model)
        features = some_rows(2)
        features[0, 0] = np.nan
        jobs = [job(served, features, options), job(served, 3, options)]
        Batch(jobs).compute()
        assert len(model.calls[0][0]) == 5
        assert jobs[1].result is not None

    run(scenario)


class Waiting(FakeModel):
    """Waits, as for a processor that others have."""

    def run(self, features: FloatArray, monte_carlo: MonteCarloOptions | None = None) -> Prediction:
        sleep(WAIT_SECONDS)
        return super().run(features, monte_carlo)


WAIT_SECONDS = 0.05


@pytest.mark.parametrize("options", MODES)
def test_a_thread_that_waits_for_a_processor_keeps_none_busy(options: MonteCarloOptions | None) -> None:
    def scenario() -> None:
        served = serve(Waiting())
        batch = Batch([job(served, 3, options)])
        batch.compute()
        assert batch.seconds >= WAIT_SECONDS
        if options is None:  # threads of ONNX Runtime may have computed meanwhile
            assert batch.busy == pytest.approx(batch.seconds, rel=0.1)
        else:
            assert 0 < batch.busy < WAIT_SECONDS / 2

    run(scenario)
