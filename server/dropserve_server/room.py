"""How many threads of a lane compute at once: fewer while requests come that have precedence."""

from __future__ import annotations

import threading
from collections.abc import Callable
from time import perf_counter
from types import TracebackType

_RECENT_SECONDS = 0.25
_LOOK_SECONDS = 0.05


class Room:
    """A context in which only so many threads are at a time; the others wait to enter it.

    Parameters
    ----------
    places : int
        For so many.
    fewer : int
        For so many while there are requests that have precedence. Who is inside already stays.
    latest : callable
        When the last of those came, on `perf_counter`'s clock.
    """

    def __init__(self, places: int, fewer: int, latest: Callable[[], float]) -> None:
        self._most = places
        self._fewer = fewer
        self._latest = latest
        self._inside = 0
        self._came = self._entered = 0  # how many threads in all; they enter as they came
        self._changed = threading.Condition()

    @property
    def places(self) -> int:
        """For how many it is now."""
        return self._fewer if perf_counter() - self._latest() < _RECENT_SECONDS else self._most

    def __enter__(self) -> None:
        with self._changed:
            number = self._came
            self._came += 1
            while number != self._entered or self._inside >= self.places:
                # Nobody says that no more requests came: while those inside stay for long, it is looked for.
                self._changed.wait(_LOOK_SECONDS)
            self._entered += 1
            self._inside += 1
            self._changed.notify_all()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        with self._changed:
            self._inside -= 1
            self._changed.notify_all()
