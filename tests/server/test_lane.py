"""The queue in front of the computing threads: what is computed, what is dropped, what is refused."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from functools import partial
from time import perf_counter

import pytest

from dropserve_server.errors import DeadlineExpired, QueueFull
from dropserve_server.lane import Job, Lane

NEVER = float("inf")
SECONDS = 10.0


class Task(Job[object]):
    """Calls a function."""

    def __init__(self, function: Callable[[], object], rows: int = 1, deadline: float = NEVER) -> None:
        super().__init__(rows, deadline)
        self.function = function

    def compute(self) -> object:
        return self.function()


def run(scenario: Callable[[], object]) -> None:
    asyncio.run(asyncio.wait_for(scenario(), SECONDS))  # type: ignore[arg-type]


def test_results_come_back_to_the_event_loop_from_another_thread() -> None:
    async def scenario() -> None:
        lane = Lane("test", workers=1, max_rows=10)
        task = Task(threading.get_ident)
        lane.submit(task)
        assert await task.outcome != threading.get_ident()
        assert task.queued <= task.begun <= task.finished
        assert await lane.close(SECONDS)

    run(scenario)


def test_jobs_of_one_worker_are_computed_in_the_order_they_came() -> None:
    async def scenario() -> None:
        lane = Lane("test", workers=1, max_rows=100)
        order: list[int] = []
        tasks = [Task(partial(order.append, number)) for number in range(50)]
        for task in tasks:
            lane.submit(task)
        await asyncio.gather(*(task.outcome for task in tasks))
        assert order == list(range(50))
        await lane.close(SECONDS)

    run(scenario)


def test_several_workers_compute_at_the_same_time() -> None:
    async def scenario() -> None:
        lane = Lane("test", workers=3, max_rows=10)
        meeting = threading.Barrier(3, timeout=SECONDS)
        tasks = [Task(meeting.wait) for _ in range(3)]
        for task in tasks:
            lane.submit(task)
        assert set(await asyncio.gather(*(task.outcome for task in tasks))) == {0, 1, 2}
        await lane.close(SECONDS)

    run(scenario)


def test_errors_come_back_and_the_worker_lives_on() -> None:
    async def scenario() -> None:
        lane = Lane("test", workers=1, max_rows=10)
        bad, good = Task(lambda: 1 / 0), Task(lambda: "fine")
        lane.submit(bad)
        lane.submit(good)
        with pytest.raises(ZeroDivisionError):
            await bad.outcome
        assert await good.outcome == "fine"
        assert lane.rows == 0
        await lane.close(SECONDS)

    run(scenario)


def test_rows_in_flight_are_bounded_and_freed() -> None:
    async def scenario() -> None:
        lane = Lane("test", workers=1, max_rows=10)
        gate = threading.Event()
        first, second = Task(gate.wait, rows=6), Task(gate.wait, rows=4)
        lane.submit(first)
        lane.submit(second)
        with pytest.raises(QueueFull, match="10 rows are in flight in test mode and 1 more"):
            lane.submit(Task(gate.wait))
        gate.set()
        await asyncio.gather(first.outcome, second.outcome)
        third = Task(lambda: "room again", rows=10)
        lane.submit(third)
        assert await third.outcome == "room again"
        await lane.close(SECONDS)

    run(scenario)


def test_a_cancelled_job_is_not_computed_and_harms_nobody() -> None:
    async def scenario() -> None:
        lane = Lane("test", workers=1, max_rows=10)
        gate = threading.Event()
        computed: list[int] = []
        tasks = [Task(gate.wait), *(Task(partial(computed.append, n)) for n in range(3))]
        for task in tasks:
            lane.submit(task)
        tasks[2].outcome.cancel()
        gate.set()
        await asyncio.gather(tasks[1].outcome, tasks[3].outcome)
        assert computed == [0, 2]
        assert lane.rows == 0
        await lane.close(SECONDS)

    run(scenario)


def test_a_job_cancelled_while_computed_gives_its_rows_back() -> None:
    async def scenario() -> None:
        lane = Lane("test", workers=1, max_rows=10)
        gate, begun = threading.Event(), threading.Event()

        def wait_at_the_gate() -> None:
            begun.set()
            gate.wait()

        task, after = Task(wait_at_the_gate, rows=10), Task(lambda: None, rows=0)
        lane.submit(task)
        await asyncio.to_thread(begun.wait, SECONDS)
        task.outcome.cancel()
        assert lane.rows == 10
        gate.set()
        lane.submit(after)
        await after.outcome
        assert lane.rows == 0
        await lane.close(SECONDS)

    run(scenario)


def test_an_expired_job_is_not_computed() -> None:
    async def scenario() -> None:
        lane = Lane("test", workers=1, max_rows=10)
        computed: list[str] = []
        expired = Task(lambda: computed.append("expired"), deadline=perf_counter() - 0.001)
        lane.submit(expired)
        with pytest.raises(DeadlineExpired):
            await expired.outcome
        assert computed == []
        await lane.close(SECONDS)

    run(scenario)


def test_close_finishes_what_is_queued_and_tells_when_it_could_not() -> None:
    async def scenario() -> None:
        lane, stuck = Lane("test", workers=2, max_rows=10), Lane("stuck", workers=1, max_rows=10)
        task, gate = Task(lambda: "done"), threading.Event()
        lane.submit(task)
        stuck.submit(Task(gate.wait))
        assert await lane.close(SECONDS)
        assert await task.outcome == "done"
        assert not await stuck.close(0.01)
        gate.set()
        assert await stuck.close(SECONDS)

    run(scenario)
