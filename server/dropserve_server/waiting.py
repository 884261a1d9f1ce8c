"""Requests that may be computed together, waiting for a worker."""

from __future__ import annotations

import threading
from collections import deque

from dropserve_server.batch import Batch
from dropserve_server.job import PredictionJob


class WaitingJobs:
    """A source of batches: all that came while the workers were busy, within bounds.

    One thread adds, any may take.

    Parameters
    ----------
    max_rows : int
        Most rows in a batch of more than one job.
    seconds : float
        How long such a batch should take at most.
    """

    __slots__ = ("_jobs", "_lock", "_max_rows", "_seconds", "ready")

    def __init__(self, max_rows: int, seconds: float) -> None:
        self.ready = False
        self._max_rows = max_rows
        self._seconds = seconds
        self._jobs: deque[PredictionJob] = deque()
        self._lock = threading.Lock()

    def __bool__(self) -> bool:
        """Whether there are jobs left to be taken."""
        return bool(self._jobs)

    def add(self, job: PredictionJob) -> None:
        """Add a job at the end."""
        self._jobs.append(job)

    def take(self) -> Batch | None:
        """The next batch; none, if all are taken."""
        with self._lock:
            if not self._jobs:
                return None
            jobs = [self._jobs.popleft()]
            rows, work = jobs[0].rows, jobs[0].work
            # Nothing known: one job, and its costs will be.
            fitting = jobs[0].costs.within(self._seconds)
            while self._jobs:
                job = self._jobs[0]
                rows, work = rows + job.rows, work + job.work
                if rows > self._max_rows or work > fitting:
                    break
                jobs.append(self._jobs.popleft())
            return Batch(jobs)
