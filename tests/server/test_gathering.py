"""Cheap requests, gathered on the event loop."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from dropserve_server import gathering
from dropserve_server.gathering import MAX_JOBS, MAX_SECONDS, Gathering
from dropserve_server.job import PredictionJob
from support.fake_model import FakeModel
from support.jobs import job, serve

SECONDS = 10.0
CAP = 1.0


class Bench:
    """A gathering on a clock that the test turns."""

    def __init__(self) -> None:
        self.now = 100.0
        self.served = serve(FakeModel())
        self.batches: list[int] = []
        self.gathering = Gathering(self.compute)

    def compute(self, jobs: list[PredictionJob]) -> None:
        self.batches.append(len(jobs))

    def add(self, count: int = 1) -> None:
        for _ in range(count):
            self.gathering.add(job(self.served), CAP)

    async def turns(self, count: int, seconds: float) -> None:
        """So many turns of the loop, each of which takes so long."""
        for _ in range(count):
            self.now += seconds
            await asyncio.sleep(0)


def run(scenario: Callable[[Bench], Awaitable[None]], monkeypatch: pytest.MonkeyPatch) -> None:
    async def life() -> None:
        bench = Bench()
        monkeypatch.setattr(gathering, "perf_counter", lambda: bench.now)
        await asyncio.wait_for(scenario(bench), SECONDS)

    asyncio.run(life())


EMPTY, BUSY = 1e-6, 1e-4  # seconds that a turn of the loop takes when it has nothing, or something, to do


def test_those_of_one_turn_are_computed_together(monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario(bench: Bench) -> None:
        bench.add(5)
        assert bench.batches == []
        await bench.turns(100, EMPTY)
        assert bench.batches == [5]

    run(scenario, monkeypatch)


def test_where_requests_come_alone_they_are_computed_in_the_next_turn(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def scenario(bench: Bench) -> None:
        bench.add()
        await bench.turns(100, EMPTY)
        for count in range(2, 9):
            bench.add()
            await bench.turns(1, EMPTY)
            assert len(bench.batches) == count
        bench.add()  # now and then waiting is tried again
        await bench.turns(1, EMPTY)
        assert len(bench.batches) == 8
        await bench.turns(100, EMPTY)
        assert bench.batches == [1] * 9

    run(scenario, monkeypatch)


def test_what_comes_while_the_loop_is_busy_joins(monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario(bench: Bench) -> None:
        bench.add(2)  # several at once: from now on waiting pays
        await bench.turns(100, EMPTY)
        for _ in range(4):
            bench.add()
            await bench.turns(3, BUSY)
        assert bench.batches == [2]
        await bench.turns(10, EMPTY)
        assert bench.batches == [2], "a short pause is not idleness"
        await bench.turns(100, EMPTY)
        assert bench.batches == [2, 4]

    run(scenario, monkeypatch)


def test_a_busy_loop_does_not_keep_them_for_long(monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario(bench: Bench) -> None:
        bench.add()
        before = bench.now
        while not bench.batches:
            await bench.turns(1, BUSY)
        assert MAX_SECONDS <= bench.now - before <= MAX_SECONDS + 2 * BUSY

    run(scenario, monkeypatch)


def test_a_full_batch_is_computed_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario(bench: Bench) -> None:
        bench.add(2 * MAX_JOBS + 1)
        assert bench.batches == [MAX_JOBS, MAX_JOBS]
        bench.gathering.flush()
        assert bench.batches == [MAX_JOBS, MAX_JOBS, 1]
        bench.gathering.flush()
        assert len(bench.batches) == 3

    run(scenario, monkeypatch)


def test_the_loop_is_not_held_up_for_longer_than_the_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario(bench: Bench) -> None:
        bench.served.costs.deterministic.record(1, CAP / 2)
        bench.add(5)
        assert bench.batches == [2, 2]

    run(scenario, monkeypatch)
