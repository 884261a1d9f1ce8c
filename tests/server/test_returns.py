"""When those who are refused are told to come back."""

from __future__ import annotations

import heapq

import pytest

from dropserve_server.returns import Returns

NOW = 1000.0


def test_the_first_comes_when_the_queue_is_done_and_each_next_one_when_the_last_has_been_answered() -> None:
    returns = Returns(100.0)
    told = [returns.after(2.0, 0.5, NOW) for _ in range(4)]
    assert told == pytest.approx([2.0, 2.5, 3.0, 3.5])
    assert returns.after(2.0, 0.5, NOW + 1.0) == pytest.approx(3.0)


def test_turns_that_have_passed_hold_nobody_up() -> None:
    returns = Returns(100.0)
    for _ in range(10):
        returns.after(2.0, 0.5, NOW)
    assert returns.after(2.0, 0.5, NOW + 20.0) == 2.0


def test_nobody_is_sent_away_for_longer_than_the_longest_unless_the_queue_takes_longer() -> None:
    returns = Returns(5.0)
    told = [returns.after(2.0, 0.5, NOW) for _ in range(100)]
    assert max(told) == pytest.approx(5.0)
    assert returns.after(7.0, 0.5, NOW) == 7.0
    # Nor do those who were told the longest push the others ever farther away.
    assert returns.after(2.0, 0.5, NOW + 4.0) <= 3.5


def test_many_callers_who_come_when_they_are_told_are_refused_seldom() -> None:
    """The queue holds two seconds of work, ten times as many callers come at once."""
    returns, queue, now = Returns(16.0), 0.0, NOW
    due = [now] * 2000
    refused = 0
    while due:
        come = heapq.heappop(due)
        queue = max(0.0, queue - (come - now))
        now = come
        if queue < 2.0:
            queue += 0.01
        else:
            refused += 1
            heapq.heappush(due, now + returns.after(queue, 0.01, now))
    assert refused < 2500  # some 9000 where all are told to come back in two seconds
    assert now + queue < NOW + 24.0  # and the server has had nothing to do for no more than four
