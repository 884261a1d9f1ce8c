"""Where one mode's computing happens: what arrives is gathered into batches, and threads compute them.

The event loop submits and receives; computing is done by the threads, except for what is so cheap that
handing it over would cost more than doing it. Deterministic and Monte Carlo requests have a lane each, so
that neither waits for the other.
"""

from __future__ import annotations

import asyncio
from collections.abc import Hashable
from dataclasses import dataclass

import numpy as np

from dropserve_server.backlog import Backlog
from dropserve_server.batch import Batch
from dropserve_server.crew import Crew
from dropserve_server.errors import DeadlineExpired
from dropserve_server.gathering import Gathering
from dropserve_server.job import Demand, PredictionJob
from dropserve_server.large import FIRST_ROWS, LargeJob, Slice
from dropserve_server.room import Room
from dropserve_server.served import ServedModel
from dropserve_server.waiting import WaitingJobs

_MERGED_BYTES = 2**20
"""Copying a request of more bytes than these to its batch-mates costs more than the computation it saves."""


@dataclass(frozen=True, slots=True)
class Batching:
    """How requests are put together and cut.

    Attributes
    ----------
    rows : int
        Most rows of requests computed together.
    delay_seconds : float
        How long the first of them waits for others before a worker turns to them. At 0 a batch is what came
        while the workers were busy.
    turn_seconds : float
        How long a batch, or a slice of a large request, should take.
    niceness : int
        How far the computing threads give way to others for a processor, from 0 to 19.
    inline_seconds : float
        What is expected to take no longer is computed on the event loop itself; see `gathering`.
    """

    rows: int = 1024
    delay_seconds: float = 0.0
    turn_seconds: float = 0.02
    niceness: int = 0
    inline_seconds: float = 0.0


class Lane:
    """A bounded queue, and the threads that empty it.

    Submit from the event loop's thread only. Rows are counted until their job's result is back.

    Parameters
    ----------
    name : str
        The mode, as messages name it.
    workers : int
        How many threads compute.
    max_rows : int
        Most rows in flight.
    max_seconds : float
        The longest that a request may be expected to wait.
    room : Room, optional
        What a thread is in while it computes.

    Attributes
    ----------
    latest : float
        When the last request came, on `perf_counter`'s clock.
    """

    def __init__(
        self,
        name: str,
        workers: int,
        max_rows: int,
        max_seconds: float = float("inf"),
        batching: Batching = Batching(),
        room: Room | None = None,
    ) -> None:
        self.latest = float("-inf")
        self._batching = batching
        at_once = (lambda: workers) if room is None else (lambda: room.places)
        self._backlog = Backlog(name, max_rows, max_seconds, at_once, batching.turn_seconds)
        self._loop = asyncio.get_running_loop()
        self._gathering = Gathering(self._compute_inline)
        self._waiting: dict[Hashable, WaitingJobs] = {}
        self._crew = Crew(name, workers, batching.niceness, room, self._deliver)

    @property
    def rows(self) -> int:
        """Rows in flight: waiting, and being computed."""
        return self._backlog.rows

    def submit(self, job: PredictionJob) -> None:
        """Compute a job, or queue it; its `outcome` is resolved once it is computed or dropped.

        Raises
        ------
        QueueFull, DeadlineTooShort
            Too much is in flight.
        """
        self.latest = job.queued
        if self._is_cheap(job):
            self._gathering.add(job, self._batching.inline_seconds)
            return
        cut = self._is_large(job)
        self._backlog.accept(job, cut=cut)
        job.metrics.queue_rows.inc(job.rows)
        if cut:
            self._crew.serve(LargeJob(job, self._batching.turn_seconds))
        else:
            self._enqueue(job)

    def check(self, demand: Demand) -> None:
        """Raise what `submit` would raise now of a job that asks for as much."""
        if not self._is_cheap(demand):
            self._backlog.check(demand, cut=self._is_large(demand))

    def forget(self, job: PredictionJob) -> None:
        """Its caller has left. A job that waits counts no longer, and holds no features for its place."""
        # Begun is noted before it is looked whether anybody waits: what waits still will not be computed.
        if job.waits and self._release(job):
            job.features = np.empty((0, 0), np.float32)

    async def close(self, timeout: float) -> bool:
        """Let the threads finish what is queued, for at most `timeout` seconds; whether they did."""
        self._gathering.flush()
        return await self._crew.close(timeout)

    def _compute_inline(self, jobs: list[PredictionJob]) -> None:
        groups: dict[ServedModel, list[PredictionJob]] = {}
        for job in jobs:
            groups.setdefault(job.served, []).append(job)
        for group in groups.values():
            batch = Batch(group)
            batch.compute()
            _finish(batch)

    def _enqueue(self, job: PredictionJob) -> None:
        key = _group(job)
        waiting = self._waiting.get(key)
        if waiting is None:
            waiting = WaitingJobs(self._batching.rows, self._batching.turn_seconds)
            if key is not None:
                self._waiting[key] = waiting
        waiting.add(job)
        if waiting.ready:
            return
        if self._batching.delay_seconds and key is not None:
            waiting.ready = True  # as good as: it will be
            self._loop.call_later(self._batching.delay_seconds, self._crew.serve, waiting)
        else:
            self._crew.serve(waiting)

    def _is_cheap(self, demand: Demand) -> bool:
        limit = self._batching.inline_seconds
        # An accelerator is waited for, which is not for the event loop to do.
        return limit > 0 and demand.served.on_cpu and demand.costs.seconds(demand.work) <= limit

    def _is_large(self, demand: Demand) -> bool:
        if demand.rows <= FIRST_ROWS and (demand.options is None or demand.options.keeps_passes):
            return False  # there is nothing to pause between
        # Somewhat longer than a turn is better done in one than in a whole and a small slice.
        return demand.costs.seconds(demand.work) > 1.5 * self._batching.turn_seconds

    def _deliver(self, done: Batch | Slice) -> None:
        for job in done.over:
            self._release(job)
        _finish(done)
        key = _group(done.job)
        waiting = self._waiting.get(key)
        if waiting is not None and not waiting:
            del self._waiting[key]

    def _release(self, job: PredictionJob) -> bool:
        counted = self._backlog.release(job)
        if counted:
            job.metrics.queue_rows.inc(-job.rows)
        return counted


def _finish(done: Batch | Slice) -> None:
    """Learn from what was computed, and tell those who wait for it."""
    if done.rows:
        done.job.costs.record(done.work, done.seconds, done.busy)
        done.job.metrics.batch_rows.observe(done.rows)
    # Where it was one slice that is known already.
    if isinstance(done, Slice) and done.job.result is not None and done.over and done.rows < done.job.rows:
        done.job.costs.record_whole(done.job.work, done.whole_seconds, done.whole_busy)
    for job in done.over:
        _count(job)
        job.settle()


def _count(job: PredictionJob) -> None:
    """Measure a job that is over."""
    metrics = job.metrics
    if job.result is not None:
        metrics.queue_duration.observe(job.begun - job.queued)
        metrics.compute_duration.observe(job.finished - job.begun)
        metrics.rows.inc(job.rows)
        if job.result.passes:
            metrics.passes.inc(job.result.passes)
    elif isinstance(job.error, DeadlineExpired):
        metrics.queue_duration.observe(job.begun - job.queued)


def _group(job: PredictionJob) -> Hashable:
    """What jobs have in common that may be computed together; None: it is computed alone."""
    options = job.options
    if options is None:
        return job.served if job.features.nbytes <= _MERGED_BYTES else None
    # A seed promises bytes that depend on nothing else.
    return (job.served, options) if options.seed is None and not options.adaptive else None
