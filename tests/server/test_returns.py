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
    assert 4.5 <= max(told) <= 5.0
    assert min(told[7:]) >= 2.5
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


def test_more_than_have_a_turn_within_the_longest_time_do_not_come_back_together() -> None:
    """A closed loop of callers who wait, nearly twice as many as are answered in that time."""
    returns, queue, now = Returns(16.0), 0.0, NOW
    due = [now + 0.0005 * number for number in range(3000)]
    refused = [0] * 60
    while (come := heapq.heappop(due)) < NOW + 60:
        queue = max(0.0, queue - (come - now))
        now = come
        if queue < 2.0:
            queue += 0.01
            back = queue
        else:
            refused[int(now - NOW)] += 1
            back = returns.after(queue, 0.01, now)
        heapq.heappush(due, now + back)
    assert max(refused[2:]) < 600  # over 1000 where all of these are told the longest time itself


def test_patient_callers_are_answered_beside_those_who_do_not_wait() -> None:
    """Three times the capacity, most of it from callers who never come back."""
    returns, queue, now = Returns(16.0), 0.0, NOW
    due = [(now + 0.004 * number, False, 0.0) for number in range(25_000)]
    due += [(came, True, came + 30.0) for came in (NOW + 20 + number / 6 for number in range(300))]
    heapq.heapify(due)
    answered = 0
    while due:
        come, patient, deadline = heapq.heappop(due)
        queue = max(0.0, queue - (come - now))
        now = come
        if queue < 2.0:
            queue += 0.012
            answered += patient
        elif now + (back := returns.after(queue, 0.012, now)) < deadline and patient:
            heapq.heappush(due, (now + back, True, deadline))
    assert answered > 90  # some 150; some 40 where all of these are told the longest time itself
