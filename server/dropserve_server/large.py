"""A request too large to be computed in one go: cut into slices of rows, so that others pass between."""

from __future__ import annotations

import threading
from dataclasses import replace
from time import perf_counter

from dropserve_models.errors import InputError
from dropserve_models.inference.masks import fresh_seed
from dropserve_models.prediction import Prediction, concatenate
from dropserve_server.batch import check_features, observe_spread, prepare
from dropserve_server.errors import DeadlineExpired
from dropserve_server.job import PredictionJob

SLICE_ROWS = 16
"""Slices are multiples of so many rows: the engine computes seeded requests in such multiples."""
FIRST_ROWS = 64
"""The first slice of a model whose costs nobody knows."""


class LargeJob:
    """A source of slices. Thread-safe: several may be computed at the same time.

    Parameters
    ----------
    job : PredictionJob
    seconds : float
        How long a slice should take.
    """

    def __init__(self, job: PredictionJob, seconds: float) -> None:
        self.job = job
        # All slices must have the same masks, so that each pass stays one function of the features.
        unseeded = job.options is not None and job.options.seed is None
        self.options = replace(job.options, seed=fresh_seed()) if unseeded and job.options else job.options
        self.ready = False
        self._seconds = seconds
        self._lock = threading.Lock()
        self._next = 0
        self._computing = 0
        self._parts: dict[int, Prediction] = {}
        self._spent_seconds = 0.0

    def __bool__(self) -> bool:
        """Whether there are rows left to be taken."""
        return self._next < self.job.rows

    def take(self) -> Slice | None:
        """The next slice; none, if all are taken. An empty one where the rest is not to be computed."""
        job = self.job
        with self._lock:
            if not self:
                return None
            if not self._next:
                job.begun = perf_counter()
            if job.error is None and perf_counter() >= job.deadline:
                job.error = DeadlineExpired("the deadline passed before all rows were computed")
            start = self._next
            dropped = job.error is not None or job.dropped
            stop = start if dropped else min(job.rows, start + self._fitting_rows())
            self._next = job.rows if dropped else stop
            self._computing += 1
        return Slice(self, start, stop)

    @property
    def spent_seconds(self) -> float:
        """What computing its slices has taken so far."""
        return self._spent_seconds

    def add(self, start: int, part: Prediction | None, seconds: float) -> bool:
        """Hand in what a slice gave and how long it took; whether it was the last one."""
        with self._lock:
            if part is not None:
                self._parts[start] = part
            self._spent_seconds += seconds
            self._computing -= 1
            last = not self and not self._computing
        if last:
            self.job.finished = perf_counter()
            if self.job.error is None and not self.job.dropped:
                self.job.result = concatenate([self._parts[start] for start in sorted(self._parts)])
                observe_spread([self.job])
        return last

    def _fitting_rows(self) -> int:
        work = self.job.costs.within(self._seconds)
        if not work:
            return FIRST_ROWS
        return max(SLICE_ROWS, work * self.job.rows // self.job.work // SLICE_ROWS * SLICE_ROWS)


class Slice:
    """Some rows of a large job; see `Batch` for the attributes.

    Attributes
    ----------
    whole_seconds : float
        Of the last slice: what all of them took. Else 0.
    """

    __slots__ = ("_large", "_start", "_stop", "over", "rows", "seconds", "whole_seconds", "work")

    def __init__(self, large: LargeJob, start: int, stop: int) -> None:
        self._large = large
        self._start, self._stop = start, stop
        self.over: list[PredictionJob] = []
        self.rows = stop - start
        self.work = self.rows * large.job.work // large.job.rows
        self.seconds = self.whole_seconds = 0.0

    @property
    def job(self) -> PredictionJob:
        """The job that it is a slice of."""
        return self._large.job

    def compute(self) -> None:
        """Predict the rows. Raises nothing."""
        job, part = self.job, None
        if self.rows:
            prepare(job)
            begun = perf_counter()
            try:
                part = self._predict()
            except Exception as error:  # noqa: BLE001  # raised on where the outcome is awaited
                job.error = error
            self.seconds = perf_counter() - begun
        if self._large.add(self._start, part, self.seconds):
            self.over = [job]
            self.whole_seconds = self._large.spent_seconds

    def _predict(self) -> Prediction:
        job = self.job
        features = job.features[self._start : self._stop]
        check_features(features, job.served, self._start)
        try:
            return job.served.model.run(features, self._large.options)
        except InputError as error:  # names a row of the slice
            raise InputError(error.field, f"counting from row {self._start}, {error}") from error
