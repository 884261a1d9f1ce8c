"""Large requests in a lane: what is cut, who passes between, and what is learnt of it."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from dropserve_models.prediction import MonteCarloOptions
from dropserve_server.costs import Costs
from dropserve_server.lane import Batching, Lane
from support.fake_model import FakeModel
from support.jobs import job, serve
from support.lane import MONTE_CARLO, KnownCosts, check, computed, held, run


def test_models_take_turns_and_a_large_request_lets_small_ones_pass() -> None:
    async def scenario(lane: Lane) -> None:
        large_model, small_model = FakeModel(), FakeModel()
        large_served, small_served = serve(large_model), serve(small_model)
        large_served.costs.monte_carlo = KnownCosts(160, 0.02)  # 16 rows of 10 passes
        small_served.costs.monte_carlo = KnownCosts(10, 0.001)
        holding = await held(lane, large_model, large_served)
        large = job(large_served, 160, MONTE_CARLO)
        small = [job(small_served, 1, MONTE_CARLO) for _ in range(3)]
        order: list[str] = []
        large.outcome.add_done_callback(lambda _: order.append("large"))
        lane.submit(large)
        for each in small:
            each.outcome.add_done_callback(lambda _: order.append("small"))
            lane.submit(each)
        large_model.gate.set()
        await check(holding, large, *small)
        await asyncio.sleep(0)  # for the callbacks
        assert order == ["small", "small", "small", "large"]
        assert computed(large_model) == [1] + [16] * 10
        assert computed(small_model) == [3]

    run(scenario, Batching(turn_seconds=0.02))


@pytest.mark.parametrize("rows", [1, 40])
def test_many_passes_of_few_rows_let_small_requests_pass(rows: int) -> None:
    async def scenario(lane: Lane) -> None:
        large_model, small_model = FakeModel(), FakeModel()
        large_model.pauses = 5
        large_served, small_served = serve(large_model), serve(small_model)
        large_served.costs.monte_carlo.record(1000, 1.0)
        small_served.costs.monte_carlo = KnownCosts(10, 0.001)
        large = [job(large_served, rows, MonteCarloOptions(passes=1000, seed=seed)) for seed in (1, 2)]
        small = [job(small_served, 1, MONTE_CARLO) for _ in range(3)]
        order: list[str] = []
        holding = await held(lane, small_model, small_served)
        for kind, jobs in (("large", large), ("small", small)):
            for each in jobs:
                each.outcome.add_done_callback(lambda _, kind=kind: order.append(kind))  # type: ignore[misc]
                lane.submit(each)
        small_model.gate.set()
        await check(holding, *large, *small)
        await asyncio.sleep(0)  # for the callbacks
        assert order == ["small"] * 3 + ["large"] * 2
        assert computed(large_model) == [rows] * 2
        assert large_model.steps_taken == 2 * 6
        assert lane.rows == 0

    run(scenario, Batching(turn_seconds=0.0))


@pytest.mark.parametrize("kept", [{"quantiles": (0.5,)}, {"return_samples": True}])
def test_few_rows_whose_every_pass_is_kept_are_not_cut(kept: dict[str, Any]) -> None:
    async def scenario(lane: Lane) -> None:
        model = FakeModel()
        model.pauses = 5
        served = serve(model)
        served.costs.monte_carlo = KnownCosts(1000, 1.0)
        small_model = FakeModel()
        small_served = serve(small_model)
        holding = await held(lane, small_model, small_served)
        asked = job(served, 40, MonteCarloOptions(passes=1000, seed=1, **kept))
        small = job(small_served, 1, MONTE_CARLO)
        order: list[str] = []
        for kind, each in (("kept", asked), ("small", small)):
            each.outcome.add_done_callback(lambda _, kind=kind: order.append(kind))  # type: ignore[misc]
            lane.submit(each)
        small_model.gate.set()
        await check(holding, asked, small)
        await asyncio.sleep(0)  # for the callbacks
        assert order == ["kept", "small"]
        assert computed(model) == [40]

    run(scenario, Batching(turn_seconds=0.0))


@pytest.mark.parametrize(("rows", "lessons"), [(40, [40_000]), (100, [64_000, 36_000, 100_000])])
def test_what_a_large_request_takes_is_learnt_once(rows: int, lessons: list[int]) -> None:
    class Learning(Costs):
        def record_whole(self, work: int, seconds: float, busy: float | None = None) -> None:
            learnt.append(work)

    async def scenario(lane: Lane) -> None:
        model = FakeModel()
        model.pauses = 2
        served = serve(model)
        served.costs.monte_carlo = Learning()
        asked = job(served, rows, MonteCarloOptions(passes=1000, seed=1))
        lane.submit(asked)
        await check(asked)
        assert model.steps_taken, "it was cut"
        await asyncio.sleep(0)
        assert learnt == lessons

    learnt: list[int] = []
    run(scenario, Batching(turn_seconds=0.0))
