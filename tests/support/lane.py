"""A lane in an event loop, and jobs that it computes with a fake model."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import numpy as np

from dropserve_models.prediction import MonteCarloOptions
from dropserve_server.costs import Costs
from dropserve_server.job import PredictionJob
from dropserve_server.lane import Batching, Lane
from dropserve_server.room import Room
from dropserve_server.served import ServedModel
from support.fake_model import FakeModel
from support.jobs import answer_of, job, serve

SECONDS = 10.0
MONTE_CARLO = MonteCarloOptions(passes=10)


class KnownCosts(Costs):
    """Costs that what is measured does not change, so that it does not matter when the loop learns of it."""

    def __init__(self, work: int, seconds: float) -> None:
        super().__init__()
        super().record(work, seconds)
        super().record_whole(work, seconds)

    def record(self, work: int, seconds: float, busy: float | None = None) -> None:
        pass

    def record_whole(self, work: int, seconds: float, busy: float | None = None) -> None:
        pass


def run(
    scenario: Callable[[Lane], Awaitable[None]],
    batching: Batching | None = None,
    workers: int = 1,
    max_rows: int = 10_000,
    max_seconds: float = float("inf"),
    room: Room | None = None,
) -> None:
    async def life() -> None:
        lane = Lane("test", workers, max_rows, max_seconds, batching=batching or Batching(), room=room)
        await asyncio.wait_for(scenario(lane), SECONDS)
        assert await lane.close(SECONDS)
        assert lane.rows == 0

    asyncio.run(life())


async def known(lane: Lane, model: FakeModel, *options: MonteCarloOptions | None) -> ServedModel:
    """The model, served, after a first request of each kind: its costs are known."""
    served = serve(model)
    for each in options:
        first = job(served, 1, each)
        lane.submit(first)
        await first.outcome
    model.calls.clear()
    while model.entered.acquire(blocking=False):
        pass
    return served


async def held(lane: Lane, model: FakeModel, served: ServedModel, rows: int = 1) -> PredictionJob:
    """A job that a worker is at, until the model's gate opens."""
    model.gate.clear()
    holding = job(served, rows, MonteCarloOptions(passes=1, seed=0))
    lane.submit(holding)
    await asyncio.to_thread(model.entered.acquire)
    return holding


def computed(model: FakeModel) -> list[int]:
    return [len(features) for features, _ in model.calls]


async def check(*jobs: PredictionJob) -> None:
    for each in jobs:
        np.testing.assert_array_equal((await each.outcome).mean, answer_of(each.features))
