"""A lane whose requests give way to others: what is computed at once, and how long the rest is to wait."""

from __future__ import annotations

import asyncio
from pathlib import Path
from time import perf_counter

import pytest

from dropserve_models.prediction import MonteCarloOptions
from dropserve_server.errors import QueueFull
from dropserve_server.job import Demand
from dropserve_server.lane import Batching, Lane
from dropserve_server.lanes import lanes_of
from dropserve_server.room import Room
from dropserve_server.settings import Settings
from support.fake_model import FakeModel
from support.jobs import job, serve
from support.lane import MONTE_CARLO, SECONDS, KnownCosts, check, computed, held, known, run


def test_where_others_have_precedence_one_batch_is_computed_at_a_time_and_the_next_one_grows() -> None:
    async def scenario(lane: Lane) -> None:
        model = FakeModel()
        served = await known(lane, model, None)
        holding = await held(lane, model, served)
        first, second = job(served), job(served)
        lane.submit(first)
        assert not await asyncio.to_thread(model.entered.acquire, timeout=0.1), "there is a second thread"
        lane.submit(second)
        model.gate.set()
        await check(holding, first, second)
        assert computed(model) == [1, 2]

    run(scenario, workers=2, room=Room(2, 1, lambda: float("inf")))


def test_how_long_it_would_wait_heeds_how_many_compute_now() -> None:
    """Also of what is only announced, before anything is submitted that would find out."""

    async def scenario(lane: Lane) -> None:
        model = FakeModel()
        served = serve(model)
        served.costs.monte_carlo = KnownCosts(300, 0.6)
        holding = await held(lane, model, served)
        jobs = [job(served, 30, MONTE_CARLO) for _ in range(2)]
        for each in jobs:
            lane.submit(each)
        demand = Demand(served, 1, MONTE_CARLO)
        lane.check(demand)
        latest[0] = perf_counter() + 3600
        with pytest.raises(QueueFull, match=r"wait some 1\.2 s .* no longer than 1 s"):
            lane.check(demand)
        model.gate.set()
        await check(holding, *jobs)

    latest = [float("-inf")]
    batching = Batching(turn_seconds=10.0)
    run(scenario, batching, workers=2, room=Room(2, 1, lambda: latest[0]), max_seconds=1.0)


def test_it_tells_when_the_last_request_came() -> None:
    async def scenario(lane: Lane) -> None:
        assert lane.latest == float("-inf")
        last = job(serve(FakeModel()))
        lane.submit(last)
        assert lane.latest == last.queued
        await check(last)

    run(scenario)


@pytest.mark.parametrize(
    ("threads", "workers", "first", "then"), [(4, 2, 2, 1), (4, 3, 3, 2), (5, 2, 2, 2), (2, 1, 1, 1)]
)
def test_on_few_cores_one_monte_carlo_batch_less_is_computed_while_others_come(
    threads: int, workers: int, first: int, then: int, tmp_path: Path
) -> None:
    settings = Settings(repository=tmp_path, threads=threads, monte_carlo_workers=workers)

    async def life() -> None:
        deterministic, monte_carlo = lanes_of(settings)
        try:
            models = [FakeModel() for _ in range(workers)]
            jobs = [await held(monte_carlo, model, serve(model)) for model in models[:first]]
            for model in models:
                model.gate.set()
            await check(*jobs)
            plain = job(serve(FakeModel()))
            deterministic.submit(plain)
            await check(plain)
            deterministic.latest += 3600
            jobs = [await held(monte_carlo, model, serve(model)) for model in models[:then]]
            if then < workers:
                late = job(serve(models[-1]), 1, MonteCarloOptions(passes=1, seed=0))
                models[-1].gate.clear()
                monte_carlo.submit(late)
                assert not await asyncio.to_thread(models[-1].entered.acquire, timeout=0.1)
                jobs.append(late)
            for model in models:
                model.gate.set()
            await check(*jobs)
        finally:
            assert await deterministic.close(SECONDS)
            assert await monte_carlo.close(SECONDS)

    asyncio.run(life())
