"""What becomes of a job in a lane: refused, dropped, failed, given up, or finished at the end."""

from __future__ import annotations

import asyncio
import weakref

import numpy as np
import pytest

from dropserve_server.errors import QueueFull
from dropserve_server.lane import Lane
from support.fake_model import FakeModel
from support.jobs import job, serve
from support.lane import MONTE_CARLO, SECONDS, check, computed, held, known, run


def test_a_bug_fails_one_batch_and_the_worker_lives_on() -> None:
    async def scenario(lane: Lane) -> None:
        model = FakeModel()
        model.error = ZeroDivisionError()
        served = serve(model)
        bad = job(served)
        lane.submit(bad)
        with pytest.raises(ZeroDivisionError):
            await bad.outcome
        model.error = None
        good = job(served)
        lane.submit(good)
        await check(good)

    run(scenario)


def test_rows_in_flight_are_bounded_and_freed() -> None:
    async def scenario(lane: Lane) -> None:
        model = FakeModel()
        served = serve(model)
        holding = await held(lane, model, served, rows=6)
        waiting = job(served, 4)
        lane.submit(waiting)
        with pytest.raises(QueueFull):
            lane.submit(job(served))
        model.gate.set()
        await check(holding, waiting)
        again = job(served, 10)
        lane.submit(again)
        await check(again)

    run(scenario, max_rows=10)


def test_a_job_cancelled_in_the_queue_is_not_computed_and_harms_nobody() -> None:
    async def scenario(lane: Lane) -> None:
        model = FakeModel()
        served = await known(lane, model, None)
        holding = await held(lane, model, served)
        jobs = [job(served, count) for count in (1, 2, 4)]
        for each in jobs:
            lane.submit(each)
        jobs[1].outcome.cancel()
        model.gate.set()
        await check(holding, jobs[0], jobs[2])
        assert computed(model) == [1, 5]

    run(scenario)


def test_a_job_that_is_forgotten_in_the_queue_makes_room_at_once() -> None:
    async def scenario(lane: Lane) -> None:
        model = FakeModel()
        served = await known(lane, model, None)
        holding = await held(lane, model, served)
        left = job(served, np.ones((9, 3), np.float32))
        features = weakref.ref(left.features)
        lane.submit(left)
        assert lane.rows == 10
        left.outcome.cancel()
        lane.forget(left)
        lane.forget(left)
        assert lane.rows == 1
        assert features() is None
        another = job(served, 9)
        lane.submit(another)
        model.gate.set()
        await check(holding, another)
        assert computed(model) == [1, 9]

    run(scenario, max_rows=10)


def test_a_job_cancelled_while_computed_gives_its_rows_back_then() -> None:
    async def scenario(lane: Lane) -> None:
        model = FakeModel()
        served = serve(model)
        holding = await held(lane, model, served, rows=10)
        holding.outcome.cancel()
        lane.forget(holding)
        assert lane.rows == 10
        model.gate.set()
        while lane.rows:
            await asyncio.sleep(0.001)

    run(scenario)


def test_closing_finishes_what_is_queued_and_tells_when_it_could_not() -> None:
    async def scenario(lane: Lane) -> None:
        model, stuck_model = FakeModel(), FakeModel()
        asked = [job(serve(model), count, MONTE_CARLO) for count in (500, 1, 1)]
        for each in asked:
            lane.submit(each)
        stuck = Lane("stuck", 1, 10)
        await held(stuck, stuck_model, serve(stuck_model))
        assert await lane.close(SECONDS)
        await check(*asked)
        assert not await stuck.close(0.01)
        stuck_model.gate.set()
        assert await stuck.close(SECONDS)

    run(scenario, workers=2)
