"""What is accepted, and what is refused at once."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from time import perf_counter

import pytest

from dropserve_models.prediction import MonteCarloOptions
from dropserve_server.backlog import Backlog
from dropserve_server.errors import DeadlineTooShort, QueueFull
from dropserve_server.served import ServedModel
from support.fake_model import FakeModel
from support.jobs import NEVER, job, serve

SUMS = MonteCarloOptions(passes=1)
"""What pauses between its passes, since it keeps sums only."""
QUANTILES = MonteCarloOptions(passes=1, quantiles=(0.5,))


def run(scenario: Callable[[], None]) -> None:
    async def life() -> None:
        scenario()

    asyncio.run(life())


def backlog(workers: int = 1, max_seconds: float = NEVER, max_rows: int = 100) -> Backlog:
    return Backlog("test", max_rows, max_seconds, lambda: workers, turn_seconds=0.5)


def learn(served: ServedModel, seconds: float = 0.1) -> None:
    """So many seconds a row, however many."""
    for power in range(8):
        served.costs.deterministic.record(2**power, 2**power * seconds)
        served.costs.monte_carlo.record(2**power, 2**power * seconds)


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
        learn(served)
        jobs = [job(served, 4) for _ in range(3 * workers + 1)]
        for each in jobs[:-1]:
            queue.accept(each)
        assert queue.wait_seconds == pytest.approx(1.2)
        with pytest.raises(QueueFull, match=r"would wait some 1\.2 s .* no longer than 1 s") as refusal:
            queue.accept(jobs[-1])
        assert refusal.value.retry_seconds == pytest.approx(1.2)
        for each in jobs[:-1]:
            queue.release(each)
        assert queue.wait_seconds == 0
        queue.accept(jobs[-1])

    run(scenario)


def test_a_request_that_is_cut_counts_for_a_turn_because_others_pass_between() -> None:
    def scenario() -> None:
        queue, served = backlog(), serve(FakeModel())
        learn(served)
        whole, cut = job(served, 50), job(served, 50, SUMS)
        queue.accept(whole)
        assert queue.wait_seconds == 5
        queue.accept(cut, cut=True)
        assert queue.wait_seconds == 5.5
        queue.release(whole)
        assert queue.wait_seconds == pytest.approx(0.5)

    run(scenario)


def test_requests_that_are_cut_wait_for_each_other_and_no_longer_than_each_takes() -> None:
    def scenario() -> None:
        queue, served = backlog(max_seconds=1.0), serve(FakeModel())
        learn(served)
        queue.accept(job(served, 30, SUMS), cut=True)  # three seconds
        now = perf_counter()
        for rows, least in ((2, 0.5 + 0.2), (10, 1 + 1), (40, 3 + 4)):
            with pytest.raises(DeadlineTooShort, match=f"would take some {least:g} s"):
                queue.accept(job(served, rows, SUMS, now + least - 0.1), cut=True)
        # Turns with seven of its like, and a second for others: more would be too many.
        few = [job(served, 6, SUMS) for _ in range(9)]
        for each in few:
            queue.accept(each, cut=True)
        with pytest.raises(QueueFull, match=r"wait some 6 s .* no longer than 5\.8 s") as refusal:
            queue.accept(job(served, 6, SUMS), cut=True)
        assert refusal.value.retry_seconds == pytest.approx(6)
        queue.release(few[0])
        queue.accept(job(served, 6, SUMS), cut=True)

    run(scenario)


@pytest.mark.parametrize("options", [None, QUANTILES])
def test_a_slice_that_does_not_pause_counts_for_what_it_takes(options: MonteCarloOptions | None) -> None:
    def scenario() -> None:
        queue, served = backlog(), serve(FakeModel())
        learn(served)
        cut = job(served, 80, options)
        queue.accept(cut, cut=True)
        assert queue.wait_seconds == pytest.approx(1.6)  # 16 rows of eight seconds
        with pytest.raises(DeadlineTooShort, match=r"would take some 1\.7 s"):
            queue.accept(job(served, 1, deadline=perf_counter() + 1.5))
        queue.release(cut)
        assert queue.wait_seconds == 0
        fast = serve(FakeModel())
        learn(fast, 0.01)
        queue.accept(job(fast, 80, options), cut=True)
        assert queue.wait_seconds == 0.5, "more rows fit into a turn"

    run(scenario)


def test_turns_of_different_lengths_are_taken_one_each() -> None:
    def scenario() -> None:
        queue, served = backlog(max_rows=1000), serve(FakeModel())
        learn(served)
        queue.accept(job(served, 80, QUANTILES), cut=True)  # five turns of 1.6 s
        now = perf_counter()
        for rows, options, wait in (
            (2, SUMS, 1.6),
            (10, SUMS, 2 * 1.6),
            (20, SUMS, 4 * 1.6),
            (40, SUMS, 5 * 1.6),
            (20, QUANTILES, 1.25 * 1.6),
        ):
            takes = wait + rows / 10
            with pytest.raises(DeadlineTooShort, match=f"would take some {takes:.2g} s"):
                queue.accept(job(served, rows, options, now + takes - 0.1), cut=True)
            queue.check(job(served, rows, options, now + takes + 1), cut=True)

    run(scenario)


def test_a_deadline_that_cannot_be_met_is_refused_and_one_that_can_is_not() -> None:
    def scenario() -> None:
        queue, served = backlog(), serve(FakeModel())
        learn(served)
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
