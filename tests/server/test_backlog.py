"""What is accepted, and what is refused at once."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from time import perf_counter

import pytest

from dropserve_server.backlog import Backlog
from dropserve_server.errors import DeadlineTooShort, QueueFull
from support.fake_model import FakeModel
from support.jobs import NEVER, job, serve


def run(scenario: Callable[[], None]) -> None:
    async def life() -> None:
        scenario()

    asyncio.run(life())


def backlog(workers: int = 1, max_seconds: float = NEVER) -> Backlog:
    return Backlog("test", 100, max_seconds, workers, turn_seconds=0.5)


def test_rows_are_bounded() -> None:
    def scenario() -> None:
        queue, served = backlog(), serve(FakeModel())
        first = job(served, 60)
        queue.accept(first)
        queue.accept(job(served, 40))
        with pytest.raises(QueueFull, match="100 rows are in flight in test mode and 1 more don't fit"):
            queue.accept(job(served, 1))
        queue.release(first)
        assert queue.rows == 40
        queue.accept(job(served, 60))

    run(scenario)


@pytest.mark.parametrize("workers", [1, 2])
def test_the_expected_wait_is_bounded_and_told(workers: int) -> None:
    def scenario() -> None:
        queue, served = backlog(workers, max_seconds=1.0), serve(FakeModel())
        served.costs.deterministic.record(10, 1.0)  # a tenth of a second a row
        jobs = [job(served, 4) for _ in range(3 * workers + 1)]
        for each in jobs[:-1]:
            queue.accept(each)
        assert queue.wait_seconds == pytest.approx(1.2)
        with pytest.raises(QueueFull, match=r"would wait some 1\.2 s, .* longer than 1 s") as refusal:
            queue.accept(jobs[-1])
        assert refusal.value.retry_seconds == pytest.approx(1.2)
        for each in jobs[:-1]:
            queue.release(each)
        assert queue.wait_seconds == 0
        queue.accept(jobs[-1])

    run(scenario)


def test_a_large_request_counts_for_a_turn_because_others_pass_between() -> None:
    def scenario() -> None:
        queue, served = backlog(), serve(FakeModel())
        served.costs.deterministic.record(10, 1.0)
        queue.accept(job(served, 100))
        assert queue.wait_seconds == 0.5

    run(scenario)


def test_a_deadline_that_cannot_be_met_is_refused_and_one_that_can_is_not() -> None:
    def scenario() -> None:
        queue, served = backlog(), serve(FakeModel())
        served.costs.deterministic.record(10, 1.0)
        queue.accept(job(served, 4))
        now = perf_counter()
        with pytest.raises(DeadlineTooShort, match=r"would take some 0\.5 s, .* allows 0\.45 s"):
            queue.accept(job(served, 1, deadline=now + 0.45))
        queue.accept(job(served, 1, deadline=now + 5))
        assert queue.rows == 5

    run(scenario)


def test_an_idle_server_tries_whatever_it_expects() -> None:
    """Else it would never learn that a model has become faster than it once was."""

    def scenario() -> None:
        queue, served = backlog(max_seconds=1.0), serve(FakeModel())
        served.costs.deterministic.record(1, 1000.0)
        queue.accept(job(served, 1, deadline=perf_counter() + 0.1))
        assert queue.rows == 1

    run(scenario)


def test_a_large_request_is_not_refused_for_what_small_ones_cost() -> None:
    def scenario() -> None:
        queue, served = backlog(), serve(FakeModel())
        served.costs.deterministic.record(1, 0.01)
        queue.accept(job(served, 1))
        queue.accept(job(served, 90, deadline=perf_counter() + 0.5))  # 90 times as much would be too late

    run(scenario)
