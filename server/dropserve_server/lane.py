"""Where computing happens: a queue bounded in rows, and the threads that empty it.

The event loop submits and receives; only `Job.compute` runs in the threads. Deterministic and Monte
Carlo requests have a lane each, so that neither waits for the other.
"""

from __future__ import annotations

import asyncio
import threading
from abc import ABC, abstractmethod
from collections import deque
from queue import SimpleQueue
from time import perf_counter
from typing import Generic, TypeVar

from dropserve_server.errors import DeadlineExpired, QueueFull

Result = TypeVar("Result")


class Job(ABC, Generic[Result]):
    """Work for a lane, and the times at which it was queued, begun and finished (`perf_counter`, seconds).

    Attributes
    ----------
    rows : int
        What it counts for in the lane's bound.
    deadline : float
        On `perf_counter`'s clock; once it has passed the work is not begun.
    outcome : asyncio.Future
        The result. Cancelling it drops the job, unless it has begun.
    """

    __slots__ = ("begun", "deadline", "error", "finished", "outcome", "queued", "result", "rows")

    def __init__(self, rows: int, deadline: float) -> None:
        self.rows = rows
        self.deadline = deadline
        self.queued = self.begun = self.finished = perf_counter()
        self.outcome: asyncio.Future[Result] = asyncio.get_running_loop().create_future()
        self.result: Result | None = None
        self.error: Exception | None = None

    @abstractmethod
    def compute(self) -> Result:
        """Do the work; runs in a thread of the lane."""

    @property
    def queue_seconds(self) -> float:
        """How long the job waited to be begun."""
        return self.begun - self.queued

    @property
    def compute_seconds(self) -> float:
        """How long the work took."""
        return self.finished - self.begun


class Lane:
    """A queue bounded in rows, and the threads that empty it.

    Submit from the event loop's thread only. Rows are counted until their job's result is back.
    """

    def __init__(self, name: str, workers: int, max_rows: int) -> None:
        self._name = name
        self._max_rows = max_rows
        self._rows = 0
        self._loop = asyncio.get_running_loop()
        self._queue: SimpleQueue[Job[object] | None] = SimpleQueue()
        self._computed: deque[Job[object]] = deque()
        self._delivery_scheduled = False
        self._threads = [
            threading.Thread(target=self._work, name=f"{name}-{number}", daemon=True)
            for number in range(workers)
        ]
        for thread in self._threads:
            thread.start()

    @property
    def rows(self) -> int:
        """Rows in flight: waiting, and being computed."""
        return self._rows

    def submit(self, job: Job[Result]) -> None:
        """Queue a job; its `outcome` is resolved once it is computed or dropped.

        Raises
        ------
        QueueFull
            Its rows don't fit beside those in flight.
        """
        if self._rows + job.rows > self._max_rows:
            raise QueueFull(
                f"{self._rows} rows are in flight in {self._name} mode and {job.rows} more don't fit: "
                f"the server holds {self._max_rows}; try again later"
            )
        self._rows += job.rows
        self._queue.put(job)  # type: ignore[arg-type]  # results differ by job; the queue doesn't look at them

    async def close(self, timeout: float) -> bool:
        """Let the threads finish what is queued, for at most `timeout` seconds; whether they did."""
        for _ in self._threads:
            self._queue.put(None)
        deadline = perf_counter() + timeout
        for thread in self._threads:
            await asyncio.to_thread(thread.join, max(0.0, deadline - perf_counter()))
        return not any(thread.is_alive() for thread in self._threads)

    def _work(self) -> None:
        while (job := self._queue.get()) is not None:
            if not job.outcome.done():
                job.begun = perf_counter()
                try:
                    if job.begun >= job.deadline:
                        raise DeadlineExpired("the deadline passed while the request was queued")
                    job.result = job.compute()
                except Exception as error:  # noqa: BLE001  # raised on where the outcome is awaited
                    job.error = error
                job.finished = perf_counter()
            self._computed.append(job)
            # One wake-up of the event loop brings back all that was computed until it comes.
            if not self._delivery_scheduled:
                self._delivery_scheduled = True
                self._loop.call_soon_threadsafe(self._deliver)
            del job  # not held, nor its features, while waiting for the next

    def _deliver(self) -> None:
        self._delivery_scheduled = False  # first: what is computed from here on schedules another one
        while self._computed:
            job = self._computed.popleft()
            self._rows -= job.rows
            if job.outcome.done():
                continue
            if job.error is not None:
                job.outcome.set_exception(job.error)
            else:
                job.outcome.set_result(job.result)
