"""The threads of a lane: each takes work for a turn from whoever has some, and computes it."""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import Callable
from contextlib import nullcontext
from queue import SimpleQueue
from time import perf_counter
from typing import Protocol

from dropserve_server.batch import Batch
from dropserve_server.large import Slice
from dropserve_server.room import Room
from dropserve_server.scheduling import give_way


class Source(Protocol):
    """What a thread takes its work from.

    Attributes
    ----------
    ready : bool
        Whether it is among those that threads will turn to.
    """

    ready: bool

    def __bool__(self) -> bool:
        """Whether there is work left to be taken."""

    def take(self) -> Batch | Slice | None:
        """Work for a turn."""


class Crew:
    """Threads that serve sources in turn, and bring what they computed back to the event loop.

    Parameters
    ----------
    name : str
        What the threads are called.
    size : int
        How many there are.
    niceness : int
        How far they give way to others for a processor, from 0 to 19.
    room : Room, optional
        What a thread is in while it computes.
    deliver : callable
        Is given what was computed, by the event loop.
    """

    def __init__(
        self,
        name: str,
        size: int,
        niceness: int,
        room: Room | None,
        deliver: Callable[[Batch | Slice], None],
    ) -> None:
        self._niceness = niceness
        self._room = room
        self._deliver = deliver
        self._loop = asyncio.get_running_loop()
        self._ready: SimpleQueue[Source | None] = SimpleQueue()
        self._computed: deque[Batch | Slice] = deque()
        self._delivery_scheduled = False
        self._closing = False
        self._threads = [
            threading.Thread(target=self._work, name=f"{name}-{number}", daemon=True)
            for number in range(size)
        ]
        for thread in self._threads:
            thread.start()

    def serve(self, source: Source) -> None:
        """Turn to a source when it is its turn."""
        source.ready = True
        self._ready.put(source)

    async def close(self, timeout: float) -> bool:
        """Let the threads finish what is queued, for at most `timeout` seconds; whether they did."""
        if not self._closing:
            self._closing = True
            self._ready.put(None)
        deadline = perf_counter() + timeout
        for thread in self._threads:
            await asyncio.to_thread(thread.join, max(0.0, deadline - perf_counter()))
        return not any(thread.is_alive() for thread in self._threads)

    def _work(self) -> None:
        give_way(self._niceness)
        while True:
            source = self._ready.get()
            if source is None:
                idle = self._ready.empty()
                self._ready.put(None)  # for the next thread, or for this one, behind what is left to do
                if idle:
                    return
                continue
            with self._room or nullcontext():
                self._compute(source)
            del source  # not held, nor its features, while waiting for the next

    def _compute(self, source: Source) -> None:
        """Compute one turn's work of a source."""
        # First: whoever adds to the source from here on makes it ready again. Twice would do no harm.
        source.ready = False
        work = source.take()
        if source and not source.ready:
            self.serve(source)
        if work is None:
            return
        if work.compute():
            self._computed.append(work)
            # One wake-up of the event loop brings back all that was computed until it comes.
            if not self._delivery_scheduled:
                self._delivery_scheduled = True
                self._loop.call_soon_threadsafe(self._bring_back)
        elif not source.ready:
            self.serve(source)

    def _bring_back(self) -> None:
        self._delivery_scheduled = False  # first: what is computed from here on schedules another one
        while self._computed:
            self._deliver(self._computed.popleft())
