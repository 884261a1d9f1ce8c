"""A request too large to be computed in one go: cut, so that others pass between.

It is cut into slices of rows, which several workers may compute at the same time. In Monte Carlo mode a
slice that takes too long all the same pauses between blocks of passes, unless it keeps all their outputs. Up
to `FIRST_ROWS` rows are one slice: what they are answered is that of a request which is not cut.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterator
from time import perf_counter

from dropserve_models.errors import InputError
from dropserve_models.inference.whole import Whole
from dropserve_models.prediction import FloatArray, MonteCarloOptions, Prediction, concatenate
from dropserve_server.batch import busy_clock, check_features, observe_spread, prepare
from dropserve_server.errors import DeadlineExpired
from dropserve_server.job import PredictionJob
from dropserve_server.served import ServableModel

SLICE_ROWS = 16
"""Slices are multiples of so many rows: the engine computes seeded requests in such multiples."""
FIRST_ROWS = 64
"""The first slice of a model whose costs nobody knows, and the least that is cut into several."""


class LargeJob:
    """A source of slices. Thread-safe: several may be computed at the same time.

    Parameters
    ----------
    job : PredictionJob
    seconds : float
        How long a slice should take, or compute before it pauses.

    Attributes
    ----------
    spent_seconds, spent_busy : float
        What computing its slices has taken, once they are handed in; see `Batch`.
    """

    def __init__(self, job: PredictionJob, seconds: float) -> None:
        self.job = job
        self.seconds = seconds
        unseeded = job.options is not None and job.options.seed is None and job.rows > FIRST_ROWS
        self.whole = Whole(job.rows) if unseeded else None
        self.ready = False
        self._lock = threading.Lock()
        self._next = 0
        self._computing = 0
        self._paused: deque[Slice] = deque()
        self._parts: dict[int, Prediction] = {}
        self.spent_seconds = self.spent_busy = 0.0

    def __bool__(self) -> bool:
        """Whether there are rows left to be taken, or slices to go on with."""
        return self._next < self.job.rows or bool(self._paused)

    @property
    def given_up(self) -> bool:
        """Whether what is left is not to be computed."""
        return self.job.error is not None or self.job.dropped

    def take(self) -> Slice | None:
        """The next slice, or one that has paused; none, if all are taken.

        Where the rest is not to be computed, what has paused comes to its end, and an empty one is the last.
        """
        job = self.job
        with self._lock:
            if not self:
                return None
            if not self._next:
                job.begun = perf_counter()
                # Of more rows several slices may be computed at once: they may be done sooner than expected.
                if job.rows <= FIRST_ROWS:
                    job.error = job.too_late
            if job.error is None and perf_counter() >= job.deadline:
                job.error = DeadlineExpired("the deadline passed before all rows were computed")
            self._computing += 1
            if self._paused:
                return self._paused.popleft()
            start, given_up = self._next, self.given_up
            stop = start if given_up else min(job.rows, start + self._fitting_rows())
            self._next = job.rows if given_up else stop
        return Slice(self, start, stop)

    def pause(self, part: Slice) -> None:
        """Take a slice back, to go on with it later."""
        with self._lock:
            self._computing -= 1
            self._paused.append(part)

    def add(self, start: int, part: Prediction | None, seconds: float, busy: float) -> bool:
        """Hand in what a slice gave and what it took; whether it was the last one."""
        with self._lock:
            if part is not None:
                self._parts[start] = part
            self.spent_seconds += seconds
            self.spent_busy += busy
            self._computing -= 1
            last = not self and not self._computing
        if last:
            self.job.finished = perf_counter()
            if self.job.error is None and not self.job.dropped:
                self.job.result = concatenate([self._parts[start] for start in sorted(self._parts)])
                observe_spread([self.job])
        return last

    def _fitting_rows(self) -> int:
        if self.job.rows <= FIRST_ROWS:
            return self.job.rows
        work = self.job.costs.within(self.seconds)
        if not work:
            return FIRST_ROWS
        return max(SLICE_ROWS, work * self.job.rows // self.job.work // SLICE_ROWS * SLICE_ROWS)


class Slice:
    """Some rows of a large job; see `Batch` for the attributes.

    Attributes
    ----------
    whole_seconds, whole_busy : float
        Of the last slice: what all of them took. Else 0.
    """

    __slots__ = (
        "_large", "_start", "_steps", "_stop",
        "busy", "over", "rows", "seconds", "whole_busy", "whole_seconds", "work",
    )  # fmt: skip

    def __init__(self, large: LargeJob, start: int, stop: int) -> None:
        self._large = large
        self._start, self._stop = start, stop
        self._steps: Iterator[Prediction | None] | None = None
        self.over: list[PredictionJob] = []
        self.rows = stop - start
        self.work = self.rows * large.job.work // large.job.rows
        self.seconds = self.busy = self.whole_seconds = self.whole_busy = 0.0

    @property
    def job(self) -> PredictionJob:
        """The job that it is a slice of."""
        return self._large.job

    def compute(self) -> bool:
        """Predict the rows, or some passes more of them; whether that was all. Raises nothing."""
        job, part = self.job, None
        if self.rows and not self._large.given_up:
            prepare(job)
            clock = busy_clock(job)
            begun, kept_busy = perf_counter(), clock()
            # Nothing bounds how many pause: what keeps every pass's outputs is computed without a pause.
            keeps_passes = job.options is not None and job.options.keeps_passes
            until = float("inf") if keeps_passes else begun + self._large.seconds
            try:
                part = self._predict(until)
            except Exception as error:  # noqa: BLE001  # raised on where the outcome is awaited
                job.error = error
            self.seconds += perf_counter() - begun
            self.busy += clock() - kept_busy
            if part is None and not self._large.given_up:
                self._large.pause(self)
                return False
        if part is None:
            self.rows = self.work = 0
        if self._large.add(self._start, part, self.seconds, self.busy):
            self.over = [job]
            self.whole_seconds, self.whole_busy = self._large.spent_seconds, self._large.spent_busy
        return True

    def _predict(self, until: float) -> Prediction | None:
        """The prediction, or None where there is more to do."""
        job = self.job
        if self._steps is None:
            features = job.features[self._start : self._stop]
            check_features(features, job.served, self._start)
            self._steps = _steps(job.served.model, features, job.options, self._large.whole)
        try:
            for prediction in self._steps:
                if prediction is not None or perf_counter() >= until or self._large.given_up:
                    return prediction
        except InputError as error:
            if self.rows == job.rows:
                raise
            # It names a row of the slice.
            raise InputError(error.field, f"counting from row {self._start}, {error}") from error
        raise AssertionError("the prediction comes last")


def _steps(
    model: ServableModel, features: FloatArray, options: MonteCarloOptions | None, whole: Whole | None
) -> Iterator[Prediction | None]:
    if options is None:
        yield model.run(features)
    else:
        yield from model.steps(features, options, whole)
