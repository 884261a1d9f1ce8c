"""Requests computed together, each with an outcome of its own."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from time import perf_counter, thread_time

import numpy as np
from numpy.typing import NDArray

from dropserve_models.errors import InputError
from dropserve_models.prediction import FloatArray, Prediction
from dropserve_server.errors import DeadlineExpired
from dropserve_server.job import PredictionJob
from dropserve_server.served import ServedModel


class Batch:
    """Jobs of one model and one mode, in Monte Carlo mode of the same options.

    Attributes
    ----------
    over : sequence of PredictionJob
        Once computed: the jobs, each with a result, with an error or, its caller gone, with neither.
    rows, work : int
        Of those that have a result.
    seconds, busy : float
        How long that took, and in how much of it a processor was kept busy; see `busy_clock`.
    """

    __slots__ = ("busy", "over", "rows", "seconds", "work")

    def __init__(self, jobs: Sequence[PredictionJob]) -> None:
        self.over = jobs
        self.rows = self.work = 0
        self.seconds = self.busy = 0.0

    @property
    def job(self) -> PredictionJob:
        """Any of the jobs: they share the model and the mode."""
        return self.over[0]

    def compute(self) -> bool:
        """Predict those that are still waited for; True: nothing is left to be done. Raises nothing."""
        begun = perf_counter()
        wanted = []
        for job in self.over:
            job.begun = begun
            if job.dropped:
                continue
            if (error := job.too_late) is not None:
                job.error = error
                continue
            wanted.append(job)
        if wanted:
            prepare(wanted[0])
            clock = busy_clock(wanted[0])
            started, kept_busy = perf_counter(), clock()
            _predict(wanted)
            finished = perf_counter()
            self.busy = clock() - kept_busy
            self.seconds = finished - started
            for job in wanted:
                job.finished = finished
                if job.result is not None:
                    self.rows += job.rows
                    self.work += job.work
            observe_spread(wanted)
        return True


def busy_clock(job: PredictionJob) -> Callable[[], float]:
    """What tells how long computing a job keeps a processor busy, for the thread that computes it.

    The thread's own time, without that in which others had the processor or the interpreter. Where others do
    the computing, an accelerator or ONNX Runtime's threads, there is only the time that passes.
    """
    return thread_time if job.options is not None and job.served.on_cpu else perf_counter


def prepare(job: PredictionJob) -> None:
    """What only a model's first request waits for; apart, so as not to count among what a request costs."""
    if job.options is not None:
        with suppress(Exception):  # the prediction itself will raise it
            job.served.model.prepare_monte_carlo()


def observe_spread(jobs: Sequence[PredictionJob]) -> None:
    """Note how unsure the Monte Carlo answers of one model are."""
    if jobs[0].options is None:
        return
    answers = [job.result for job in jobs if job.result is not None]
    variances = [answer.predictive_variance for answer in answers]
    largest = [variance.max(axis=1) for variance in variances if variance is not None]
    if largest:
        jobs[0].served.metrics.predictive_std.observe_many(np.sqrt(np.concatenate(largest)))


def usable(features: FloatArray, served: ServedModel) -> NDArray[np.bool_]:
    """Which of the features are finite, or missing where the model accepts that."""
    finite: NDArray[np.bool_] = np.isfinite(features)
    if served.accepts_missing is None or finite.all():
        return finite
    return finite | (np.isnan(features) & served.accepts_missing)


def check_features(features: FloatArray, served: ServedModel, first_row: int = 0) -> None:
    """Raise InputError naming the first row and column of `features` that can't be used."""
    can_be_used = usable(features, served)
    if not can_be_used.all():
        row, column = divmod(int(np.argmin(can_be_used)), features.shape[1])
        value = features[row, column]
        missing = np.isnan(value) and served.accepts_missing is not None
        raise InputError(
            "inputs",
            f"inputs[{first_row + row}, {column}] ({served.info.feature_names[column]}) is {value}; "
            + (
                "the column accepts no missing values" if missing else "every feature must be a finite number"
            ),
        )


def predict_alone(job: PredictionJob) -> None:
    """Set a job's result or error; neither where its caller leaves meanwhile."""
    model, options = job.served.model, job.options
    try:
        check_features(job.features, job.served)
        if options is None:
            job.result = model.run(job.features)
            return
        # Nobody else has a turn at a pause: it is where one that is not waited for any more can end.
        for prediction in model.steps(job.features, options):
            if prediction is not None:
                job.result = prediction
            elif job.dropped:
                return
            elif perf_counter() >= job.deadline:
                raise DeadlineExpired("the deadline passed before all passes were computed")
    except Exception as error:  # noqa: BLE001  # raised on where the outcome is awaited
        job.error = error


def _predict(jobs: Sequence[PredictionJob]) -> None:
    """Set the result or the error of each."""
    if len(jobs) > 1:
        # What fails together is done again one by one, so that whoever spoilt it fails alone.
        with suppress(Exception):
            for job, prediction in zip(jobs, _predict_together(jobs), strict=True):
                job.result = prediction
    for job in jobs:
        if job.result is None:
            predict_alone(job)


def _predict_together(jobs: Sequence[PredictionJob]) -> Iterator[Prediction | None]:
    """The predictions of the jobs' rows in one go; None for a job that is better predicted alone."""
    model, options = jobs[0].served.model, jobs[0].options
    if options is None:
        features = np.concatenate([job.features for job in jobs])
        check_features(features, jobs[0].served)
        yield from split(model.run(features), jobs)
        return
    joins = [
        model.together(job.rows, options) is not None and bool(usable(job.features, job.served).all())
        for job in jobs
    ]
    parts = [job.features for job, joined in zip(jobs, joins, strict=True) if joined]
    with np.errstate(over="ignore", invalid="ignore"):  # what overflows is done again, and refused, alone
        answers = iter(model.run_together(parts, options) if parts else ())
    for joined in joins:
        answer = next(answers) if joined else None
        yield answer if answer is not None and _is_finite(answer) else None


def split(prediction: Prediction, jobs: Sequence[PredictionJob]) -> Iterator[Prediction]:
    """A deterministic prediction of several jobs' rows, to each its own."""
    mean, noise = prediction.mean, prediction.aleatoric_variance
    start = 0
    for job in jobs:
        stop = start + job.rows
        own = slice(start, stop)
        yield Prediction(mean[own], aleatoric_variance=None if noise is None else noise[own])
        start = stop


def _is_finite(prediction: Prediction) -> bool:
    values = (prediction.mean, prediction.variance, prediction.aleatoric_variance)
    return all(value is None or bool(np.isfinite(value).all()) for value in values)
