"""One mode's computing: what is put together, what is cut, and who waits for whom."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import numpy as np
import pytest

from dropserve_models.prediction import MonteCarloOptions
from dropserve_server.lane import Batching, Lane
from support.fake_model import FakeModel
from support.jobs import job, serve, some_rows
from support.lane import MONTE_CARLO, check, computed, held, known, run


def test_a_result_comes_back_to_the_event_loop_from_another_thread() -> None:
    async def scenario(lane: Lane) -> None:
        model = FakeModel()
        threads = set()
        run_there, model.run = model.run, lambda *args: threads.add(threading.get_ident()) or run_there(*args)  # type: ignore[func-returns-value,method-assign]
        asked = job(serve(model), 2)
        lane.submit(asked)
        await check(asked)
        assert threads
        assert threading.get_ident() not in threads
        assert asked.queued <= asked.begun < asked.finished

    run(scenario)


@pytest.mark.parametrize("options", [None, MONTE_CARLO])
def test_what_came_while_the_workers_were_busy_is_the_next_batch(options: MonteCarloOptions | None) -> None:
    async def scenario(lane: Lane) -> None:
        model = FakeModel()
        served = await known(lane, model, options)
        holding = await held(lane, model, served)
        jobs = [job(served, some_rows(count, 10.0 * count), options) for count in (1, 2, 3)]
        for each in jobs:
            lane.submit(each)
        model.gate.set()
        await check(holding, *jobs)
        assert computed(model) == [1, 6]

    run(scenario)


def test_batches_are_bounded_in_rows() -> None:
    async def scenario(lane: Lane) -> None:
        model = FakeModel()
        served = await known(lane, model, None)
        holding = await held(lane, model, served)
        jobs = [job(served, 2) for _ in range(5)]
        for each in jobs:
            lane.submit(each)
        model.gate.set()
        await check(holding, *jobs)
        assert computed(model) == [1, 4, 4, 2]

    run(scenario, Batching(rows=5))


def test_batches_are_bounded_in_expected_time() -> None:
    async def scenario(lane: Lane) -> None:
        model = FakeModel()
        served = serve(model)
        served.costs.deterministic.record(1, 0.01)
        holding = await held(lane, model, served)
        jobs = [job(served) for _ in range(7)]
        for each in jobs:
            lane.submit(each)
        model.gate.set()
        await check(holding, *jobs)
        assert computed(model)[:2] == [1, 3]

    run(scenario, Batching(turn_seconds=0.035))


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (MONTE_CARLO, MonteCarloOptions(passes=20)),
        (MonteCarloOptions(passes=10, seed=3), MonteCarloOptions(passes=10, seed=3)),
        (MonteCarloOptions(passes=10, mean_tolerance=0.1), MonteCarloOptions(passes=10, mean_tolerance=0.1)),
    ],
)
def test_other_options_seeds_and_tolerances_are_computed_apart(
    one: MonteCarloOptions, other: MonteCarloOptions
) -> None:
    async def scenario(lane: Lane) -> None:
        model = FakeModel()
        served = await known(lane, model, one, other)
        holding = await held(lane, model, served)
        jobs = [job(served, 1, one), job(served, 1, other)]
        for each in jobs:
            lane.submit(each)
        model.gate.set()
        await check(holding, *jobs)
        assert computed(model) == [1, 1, 1]

    run(scenario)


def test_cheap_requests_are_computed_on_the_event_loop_once_their_cost_is_known() -> None:
    async def scenario(lane: Lane) -> None:
        model = FakeModel()
        threads: list[int] = []
        run_there = model.run

        def watched(*args: Any) -> Any:
            threads.append(threading.get_ident())
            return run_there(*args)

        model.run = watched  # type: ignore[assignment,method-assign]
        served = serve(model)
        for _ in range(2):
            asked = job(served)
            lane.submit(asked)
            await check(asked)
        assert threads[0] != threading.get_ident()
        assert threads[1] == threading.get_ident()

        served.costs.deterministic.record(1, 1000.0)
        served.costs.deterministic.record(1, 1000.0)
        expensive = job(served)
        lane.submit(expensive)
        await check(expensive)
        assert threads[2] != threading.get_ident()

    run(scenario, Batching(inline_seconds=1.0))


def test_an_accelerator_is_not_waited_for_on_the_event_loop() -> None:
    async def scenario(lane: Lane) -> None:
        model = FakeModel()
        served = await known(lane, model, None)
        served.on_cpu = False
        model.gate.clear()
        asked = job(served)
        lane.submit(asked)
        await asyncio.to_thread(model.entered.acquire)  # would not be reached
        model.gate.set()
        await check(asked)

    run(scenario, Batching(inline_seconds=1.0))


def test_with_a_delay_requests_wait_for_each_other() -> None:
    async def scenario(lane: Lane) -> None:
        model = FakeModel()
        served = await known(lane, model, None)
        jobs = [job(served) for _ in range(3)]
        for each in jobs:
            lane.submit(each)
            await asyncio.sleep(0.001)
        await check(*jobs)
        assert computed(model) == [3]

    run(scenario, Batching(delay_seconds=0.2))


def test_several_workers_compute_at_the_same_time() -> None:
    async def scenario(lane: Lane) -> None:
        models = [FakeModel() for _ in range(3)]
        jobs = [
            await held(lane, model, serve(model)) for model in models
        ]  # each begins while others are held
        for model in models:
            model.gate.set()
        await check(*jobs)

    run(scenario, workers=3)


def test_any_mix_gets_its_own_answers() -> None:
    async def scenario(lane: Lane) -> None:
        draw = np.random.default_rng(0)
        models = [serve(FakeModel()) for _ in range(3)]
        kinds = [None, MONTE_CARLO, MonteCarloOptions(passes=3), MonteCarloOptions(passes=3, seed=1)]
        jobs = []
        for number in range(2000):
            rows = some_rows(int(draw.choice([1, 1, 1, 2, 7, 100])), float(number))
            jobs.append(job(models[draw.integers(3)], rows, kinds[draw.integers(4)]))
            lane.submit(jobs[-1])
            if draw.random() < 0.3:
                jobs[draw.integers(len(jobs))].outcome.cancel()
            if draw.random() < 0.05:
                await asyncio.sleep(0)
        kept = [each for each in jobs if not each.outcome.cancelled()]
        assert len(kept) > 1000
        await check(*kept)

    run(scenario, Batching(rows=16, turn_seconds=0.0005, inline_seconds=1e-4), workers=3, max_rows=10**6)
