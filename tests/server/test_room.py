"""How many threads are in a room at a time, and who enters next."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from time import perf_counter

from dropserve_server.room import Room

SECONDS = 10.0
SHORT = 0.1
NEVER = float("-inf")


class Visitor:
    """A thread that enters, and leaves when told to."""

    def __init__(self, room: Room, entered: list[int], number: int) -> None:
        self.inside, self._leave = threading.Event(), threading.Event()

        def visit() -> None:
            with room:
                entered.append(number)
                self.inside.set()
                self._leave.wait(SECONDS)

        self._thread = threading.Thread(target=visit)
        self._thread.start()

    def leave(self) -> None:
        self._leave.set()
        self._thread.join(SECONDS)
        assert not self._thread.is_alive()


@contextmanager
def visitors(room: Room, entered: list[int], count: int) -> Iterator[list[Visitor]]:
    """Threads that come one after the other."""
    came: list[Visitor] = []
    try:
        for number in range(count):
            came.append(Visitor(room, entered, number))
            deadline = perf_counter() + SECONDS
            while room._came <= number:
                assert perf_counter() < deadline
        yield came
    finally:
        for visitor in came:
            visitor.leave()


def test_it_is_for_so_many_at_a_time() -> None:
    room = Room(2, 1, lambda: NEVER)
    assert room.places == 2
    with visitors(room, [], 3) as (first, second, third):
        assert first.inside.wait(SECONDS)
        assert second.inside.wait(SECONDS)
        assert not third.inside.wait(SHORT)
        second.leave()
        assert third.inside.wait(SECONDS)


def test_it_is_for_fewer_while_requests_come_that_have_precedence() -> None:
    latest = [perf_counter() + 3600]  # and go on coming
    room = Room(2, 1, lambda: latest[0])
    assert room.places == 1
    with visitors(room, [], 2) as (first, second):
        assert first.inside.wait(SECONDS)
        assert not second.inside.wait(SHORT)
        latest[0] = NEVER
        assert second.inside.wait(SECONDS), "though nobody has left"


def test_whoever_is_inside_stays_when_such_requests_come() -> None:
    latest = [NEVER]
    room = Room(2, 1, lambda: latest[0])
    with visitors(room, [], 2) as (first, second):
        assert first.inside.wait(SECONDS)
        assert second.inside.wait(SECONDS)
        latest[0] = perf_counter() + 3600
        late = Visitor(room, [], 2)
        first.leave()
        assert not late.inside.wait(SHORT)
        second.leave()
        assert late.inside.wait(SECONDS)
        late.leave()


def test_they_enter_as_they_came() -> None:
    entered: list[int] = []
    with visitors(Room(1, 1, lambda: NEVER), entered, 5) as came:
        for number, visitor in enumerate(came):
            assert visitor.inside.wait(SECONDS)
            assert entered == list(range(number + 1))
            visitor.leave()
