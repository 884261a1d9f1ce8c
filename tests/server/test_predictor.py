"""The use case: what is checked before computing, where it is computed, and what is measured."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable

import numpy as np
import pytest

from dropserve_models.errors import InputError, MemoryLimitError, MonteCarloUnavailable
from dropserve_models.prediction import FloatArray, MonteCarloOptions, Prediction
from dropserve_server.errors import DeadlineExpired, LimitExceeded, QueueFull
from dropserve_server.lane import Lane
from dropserve_server.metrics import Metrics
from dropserve_server.predictor import Limits, Predictor
from dropserve_server.served import ServedModel
from support.fake_model import FakeModel

SECONDS = 10.0


class Bench:
    """A predictor with one model and small limits."""

    def __init__(self, model: FakeModel) -> None:
        self.model = model
        self.metrics = Metrics()
        self.served = ServedModel(model, self.metrics.of_model("fake", "1"))
        self.deterministic = Lane("deterministic", 1, 100)
        self.monte_carlo = Lane("monte_carlo", 1, 100)
        limits = Limits(rows=50, passes=1000, answer_bytes=20_000)
        self.predictor = Predictor(limits, self.deterministic, self.monte_carlo)

    def value(self, name: str, mode: str | None = None) -> float | None:
        labels = {"model": "fake"} | ({"mode": mode} if mode else {})
        return self.metrics.registry.get_sample_value(name, labels)


def run(scenario: Callable[[Bench], Awaitable[None]], model: FakeModel | None = None) -> Bench:
    async def life() -> Bench:
        bench = Bench(model or FakeModel())
        try:
            await asyncio.wait_for(scenario(bench), SECONDS)
        finally:
            bench.model.gate.set()
            await bench.deterministic.close(SECONDS)
            await bench.monte_carlo.close(SECONDS)
        return bench

    return asyncio.run(life())


def rows(count: int, width: int = 3) -> FloatArray:
    return np.arange(count * width, dtype=np.float32).reshape(count, width)


def test_a_deterministic_prediction_is_computed_and_measured() -> None:
    async def scenario(bench: Bench) -> None:
        job = await bench.predictor.predict(bench.served, rows(2))
        np.testing.assert_array_equal(job.outcome.result().mean, [[3, 4], [12, 13]])
        assert job.queue_seconds >= 0
        assert job.compute_seconds > 0

    bench = run(scenario)
    assert bench.value("dropserve_rows_total", "deterministic") == 2
    assert bench.value("dropserve_queue_duration_seconds_count", "deterministic") == 1
    assert bench.value("dropserve_compute_duration_seconds_count", "deterministic") == 1
    assert bench.value("dropserve_rows_total", "monte_carlo") == 0
    assert bench.value("dropserve_passes_total") == 0
    assert bench.value("dropserve_predictive_std_count") == 0


def test_a_monte_carlo_prediction_is_computed_and_measured() -> None:
    options = MonteCarloOptions(passes=7, seed=1)

    async def scenario(bench: Bench) -> None:
        job = await bench.predictor.predict(bench.served, rows(3), options)
        assert job.outcome.result().passes == 7

    bench = run(scenario)
    assert bench.model.calls[0][1] is options
    assert bench.value("dropserve_rows_total", "monte_carlo") == 3
    assert bench.value("dropserve_passes_total") == 7
    assert bench.value("dropserve_predictive_std_count") == 3
    assert bench.value("dropserve_predictive_std_sum") == 3 * 2.0  # the fake's variance is 4


def test_deterministic_requests_do_not_wait_for_monte_carlo() -> None:
    async def scenario(bench: Bench) -> None:
        bench.model.gate.clear()
        slow = asyncio.ensure_future(bench.predictor.predict(bench.served, rows(1), MonteCarloOptions()))
        await asyncio.to_thread(bench.model.entered.acquire)
        fast_model = ServedModel(FakeModel(), bench.served.metrics)
        await bench.predictor.predict(fast_model, rows(1))
        assert not slow.done()
        bench.model.gate.set()
        await slow

    run(scenario)


@pytest.mark.parametrize(
    ("features", "error", "message"),
    [
        (rows(0), InputError, "no rows; send at least one"),
        (rows(2, 4), InputError, "'fake' takes 3 features a row; inputs has 4"),
        (rows(51), LimitExceeded, "51 rows are over the limit of 50"),
    ],
)
def test_features_are_checked_before_they_are_queued(
    features: FloatArray, error: type[Exception], message: str
) -> None:
    async def scenario(bench: Bench) -> None:
        for options in (None, MonteCarloOptions()):
            with pytest.raises(error, match=message):
                await bench.predictor.predict(bench.served, features, options)

    assert run(scenario).model.calls == []


def test_numbers_that_are_none_are_refused_with_their_place() -> None:
    async def scenario(bench: Bench) -> None:
        features = rows(4)
        features[2, 1] = np.nan
        with pytest.raises(InputError, match=r"inputs\[2, 1\] \(b\) is nan; .* finite") as refusal:
            await bench.predictor.predict(bench.served, features)
        assert refusal.value.field == "inputs"

    assert run(scenario).model.calls == []


def test_passes_have_a_limit() -> None:
    async def scenario(bench: Bench) -> None:
        with pytest.raises(InputError, match="passes is 1001; this server computes at most 1000") as refusal:
            await bench.predictor.predict(bench.served, rows(1), MonteCarloOptions(1001))
        assert refusal.value.field == "passes"

    run(scenario)


def test_a_model_that_cannot_is_told_at_once_and_still_answers_without() -> None:
    async def scenario(bench: Bench) -> None:
        with pytest.raises(
            MonteCarloUnavailable, match="'fake' can't answer with error bars: no Dropout node"
        ):
            await bench.predictor.predict(bench.served, rows(1), MonteCarloOptions())
        await bench.predictor.predict(bench.served, rows(1))

    run(scenario, FakeModel(unavailable="no Dropout node"))


@pytest.mark.parametrize(
    "options",
    [MonteCarloOptions(passes=1000, return_samples=True), MonteCarloOptions(quantiles=(0.5,) * 64)],
)
def test_answers_too_large_for_a_message_are_refused_before_they_are_computed(
    options: MonteCarloOptions,
) -> None:
    async def scenario(bench: Bench) -> None:
        await bench.predictor.predict(bench.served, rows(1), options)
        with pytest.raises(LimitExceeded, match="over the limit of 20000 a message") as refusal:
            await bench.predictor.predict(bench.served, rows(50), options)
        assert refusal.value.reason == "answer"

    assert len(run(scenario).model.calls) == 1


def test_what_a_model_raises_reaches_the_caller() -> None:
    async def scenario(bench: Bench) -> None:
        bench.model.error = MemoryLimitError("too much")
        with pytest.raises(MemoryLimitError, match="too much"):
            await bench.predictor.predict(bench.served, rows(1), MonteCarloOptions())

    assert run(scenario).value("dropserve_rows_total", "monte_carlo") == 0


def test_more_rows_than_the_queue_holds_are_refused_at_once() -> None:
    async def scenario(bench: Bench) -> None:
        bench.model.gate.clear()
        waiting = [asyncio.ensure_future(bench.predictor.predict(bench.served, rows(50))) for _ in range(2)]
        await asyncio.sleep(0)
        with pytest.raises(QueueFull):
            await bench.predictor.predict(bench.served, rows(1))
        await asyncio.to_thread(bench.model.entered.acquire)
        bench.model.gate.set()
        await asyncio.gather(*waiting)
        await bench.predictor.predict(bench.served, rows(50))

    run(scenario)


def test_cancelled_and_expired_requests_are_dropped_before_they_are_computed() -> None:
    async def scenario(bench: Bench) -> None:
        bench.model.gate.clear()
        predict = bench.predictor.predict
        first = asyncio.ensure_future(predict(bench.served, rows(1)))
        cancelled = asyncio.ensure_future(predict(bench.served, rows(2)))
        expired = asyncio.ensure_future(predict(bench.served, rows(3), seconds=0.05))
        last = asyncio.ensure_future(predict(bench.served, rows(4)))
        await asyncio.to_thread(bench.model.entered.acquire)
        cancelled.cancel()
        await asyncio.wait([cancelled])
        assert bench.deterministic.rows == 1 + 3 + 4
        await asyncio.sleep(0.06)
        bench.model.gate.set()
        await asyncio.gather(first, last)
        with pytest.raises(DeadlineExpired):
            await expired
        assert bench.deterministic.rows == 0

    assert [len(features) for features, _ in run(scenario).model.calls] == [1, 4]


@pytest.mark.parametrize("values", [4, 5])
def test_the_intervals_of_many_values_are_not_the_event_loops_to_compute(
    monkeypatch: pytest.MonkeyPatch, values: int
) -> None:
    monkeypatch.setattr("dropserve_server.predictor._QUICKLY_BOUNDED", values)
    threads = []

    class Model(FakeModel):
        def add_interval(self, prediction: Prediction, coverage: float) -> Prediction:
            threads.append(threading.current_thread())
            return super().add_interval(prediction, coverage)

    async def scenario(bench: Bench) -> None:
        job = await bench.predictor.predict(bench.served, rows(2), interval=0.5)
        assert job.result is not None
        assert job.result.interval_lower is not None
        np.testing.assert_array_equal(job.result.interval_lower, job.result.mean - 5)

    run(scenario, Model())
    assert (threads == [threading.main_thread()]) == (values == 5)


@pytest.mark.parametrize(
    ("count", "options"),
    [
        (51, None),
        (0, None),
        (10**10, MonteCarloOptions(passes=10**10)),
        (40, MonteCarloOptions(passes=1001)),
        (40, MonteCarloOptions(passes=10)),  # of a model that can't
    ],
)
def test_what_is_never_taken_is_not_refused_for_want_of_room(
    count: int, options: MonteCarloOptions | None
) -> None:
    async def scenario(bench: Bench) -> None:
        bench.model.gate.clear()
        holding = [
            asyncio.ensure_future(bench.predictor.predict(bench.served, rows(45), kind))
            for kind in (None, None, MonteCarloOptions(passes=10), MonteCarloOptions(passes=10))
        ]
        while bench.deterministic.rows + bench.monte_carlo.rows < 180:
            await asyncio.sleep(0.001)
        with pytest.raises(QueueFull):
            bench.predictor.check_room(bench.served, 40, options and MonteCarloOptions(passes=10), None)
        bench.model.monte_carlo_unavailable = "no dropout"
        bench.predictor.check_room(bench.served, count, options, None)
        lanes = bench.deterministic, bench.monte_carlo
        small = Predictor(Limits(rows=50, passes=1000, answer_bytes=100), *lanes)
        small.check_room(bench.served, 40, None, None)
        bench.model.gate.set()
        await asyncio.gather(*holding)

    run(scenario)
