"""Cheap requests, gathered while the event loop is busy and computed on it.

A small network takes some microseconds, waking a thread and the loop again ten times as long. So cheap
requests are computed on the event loop. Not each as it comes: between two requests the loop runs through
gRPC's code, which drives ours out of the processor's caches, and a request on its own is then computed
several times slower than one of many in a row. What comes while the loop has other things to do is
gathered, and computed when it has nothing else to do.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from time import perf_counter

from dropserve_server.job import PredictionJob

MAX_JOBS = 16
"""More together are hardly cheaper each."""
MAX_SECONDS = 0.002
"""How long the first request is kept at most, however busy the loop."""

_IDLE_SECONDS = 60e-6
"""A loop that has done nothing for so long has nothing to do. Shorter pauses are those of gRPC's own threads,
which hand it one event after the other."""
_EMPTY_TURN_SECONDS = 12e-6
"""A turn of the loop that took no longer has done nothing."""
_TRIES = 8


class Gathering:
    """Gathers jobs, and has them computed together. For the event loop's thread.

    Parameters
    ----------
    compute : callable
        Computes jobs, of any models.
    """

    def __init__(self, compute: Callable[[list[PredictionJob]], None]) -> None:
        self._compute = compute
        self._loop = asyncio.get_running_loop()
        self._jobs: list[PredictionJob] = []
        self._seconds = 0.0
        self._turning = False
        self._alone = 0  # how many batches in a row held a single job
        self._began = self._turned = self._busy = 0.0

    def add(self, job: PredictionJob, limit_seconds: float) -> None:
        """Add a job; the batch is computed before it would take longer than the limit."""
        if not self._jobs:
            self._began = self._turned = self._busy = perf_counter()
            if not self._turning:
                self._turning = True
                self._loop.call_soon(self._turn)
        self._jobs.append(job)
        self._seconds += job.costs.unit * job.work
        if len(self._jobs) >= MAX_JOBS or self._seconds >= limit_seconds:
            self.flush()

    def flush(self) -> None:
        """Compute what was gathered."""
        jobs, self._jobs, self._seconds = self._jobs, [], 0.0
        if jobs:
            self._alone = self._alone + 1 if len(jobs) == 1 else 0
            self._compute(jobs)

    def _turn(self) -> None:
        """After each turn of the loop: go on waiting, or not."""
        self._turning = False
        if not self._jobs:
            return
        now = perf_counter()
        if now - self._turned > _EMPTY_TURN_SECONDS:
            self._busy = now
        # Where requests come one at a time, waiting does not pay: then it is only tried now and then.
        patience = 0.0 if self._alone % _TRIES else _IDLE_SECONDS
        if now - self._busy >= patience or now - self._began >= MAX_SECONDS:
            self.flush()
        else:
            self._turned = now
            self._turning = True
            self._loop.call_soon(self._turn)
