"""The use case: rows in, a prediction out. Whatever protocol asked, the same checks, lanes and metrics.

Nothing here knows of gRPC.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from time import perf_counter

from dropserve_models.errors import InputError, ModelsError, MonteCarloUnavailable
from dropserve_models.options import check_options
from dropserve_models.prediction import FloatArray, MonteCarloOptions
from dropserve_server.errors import LimitExceeded, ServerError
from dropserve_server.job import Demand, PredictionJob
from dropserve_server.lane import Lane
from dropserve_server.served import ServedModel

__all__ = ["Limits", "PredictionJob", "Predictor"]

# The interval of so many values takes about a millisecond: beyond it, not on the event loop.
_QUICKLY_BOUNDED = 65_536


@dataclass(frozen=True, slots=True)
class Limits:
    """What one request may ask for.

    Attributes
    ----------
    rows : int
        Most rows.
    passes : int
        Most Monte Carlo passes.
    answer_bytes : int
        Most bytes of tensors in an answer.
    """

    rows: int
    passes: int
    answer_bytes: int


class Predictor:
    """Checks requests and has them computed in their mode's lane. For the event loop."""

    def __init__(self, limits: Limits, deterministic: Lane, monte_carlo: Lane) -> None:
        self._limits = limits
        self._deterministic = deterministic
        self._monte_carlo = monte_carlo

    async def predict(
        self,
        served: ServedModel,
        features: FloatArray,
        options: MonteCarloOptions | None = None,
        seconds: float | None = None,
        interval: float = 0.0,
    ) -> PredictionJob:
        """Predict `features` [rows, features], with dropout on where there are `options`.

        Cancelling the call drops the work if it has not begun.

        Parameters
        ----------
        seconds : float, optional
            How long the caller will wait.
        interval : float
            Coverage of the interval, or the prediction set, to add; 0 for none.

        Returns
        -------
        PredictionJob
            With its `result`, and its times.

        Raises
        ------
        InputError
            The features or options are wrong.
        LimitExceeded, QueueFull, MemoryLimitError
            Over a limit of size, or no room for it now.
        MonteCarloUnavailable
            The model can't be run with dropout on.
        IntervalUnavailable
            `interval` was asked of a model that is not calibrated.
        DeadlineTooShort, DeadlineExpired
            `seconds` would not suffice, or had passed before the work began.
        """
        self._check(served, len(features), features.shape[1], options, interval)
        job = PredictionJob(served, features, options, _deadline(seconds))
        lane = self._lane(options)
        lane.submit(job)
        if not job.over:
            try:
                await job.outcome
            except asyncio.CancelledError:
                lane.forget(job)
                raise
        elif job.error is not None:
            raise job.error
        if interval and job.result is not None:
            # Arithmetic on the answer alone: requests that differ in it are still computed together.
            if job.result.mean.size < _QUICKLY_BOUNDED:
                job.result = served.model.add_interval(job.result, interval)
            else:
                job.result = await asyncio.to_thread(served.model.add_interval, job.result, interval)
        return job

    def is_idle(self, options: MonteCarloOptions | None) -> bool:
        """Whether nothing is queued or computed by the threads of the mode that these options ask for."""
        return not self._lane(options).rows

    def check_room(
        self, served: ServedModel, rows: int, options: MonteCarloOptions | None, seconds: float | None
    ) -> None:
        """Raise what `predict` would raise now of so many rows for want of room, before they have come.

        What it would refuse at any time is not told to come again: that is left to it.

        Raises
        ------
        QueueFull, DeadlineTooShort
        """
        try:
            self._check(served, rows, served.features, options)
        except (ServerError, ModelsError):
            return
        self._lane(options).check(Demand(served, rows, options, _deadline(seconds)))

    def _lane(self, options: MonteCarloOptions | None) -> Lane:
        return self._deterministic if options is None else self._monte_carlo

    def _check(
        self,
        served: ServedModel,
        rows: int,
        width: int,
        options: MonteCarloOptions | None,
        interval: float = 0.0,
    ) -> None:
        if rows > self._limits.rows:
            raise LimitExceeded(
                "rows", f"{rows} rows are over the limit of {self._limits.rows} a request; send them in parts"
            )
        if rows == 0:
            raise InputError("inputs", "inputs has no rows; send at least one")
        if width != served.features:
            raise InputError(
                "inputs", f"model {served.name!r} takes {served.features} features a row; inputs has {width}"
            )
        tensors = 2
        if options is not None:
            self._check_options(served, options)
            tensors = 8 + len(options.quantiles) + (options.passes if options.return_samples else 0)
        if interval:
            served.model.check_interval(interval, monte_carlo=options is not None)
            tensors += 2
        answer_bytes = 4 * tensors * rows * served.outputs
        if answer_bytes > self._limits.answer_bytes:
            raise LimitExceeded(
                "answer",
                f"the answer would take some {answer_bytes} bytes, over the limit of "
                f"{self._limits.answer_bytes} a message; ask for fewer rows, quantiles or passes, "
                "or for no samples",
            )

    def _check_options(self, served: ServedModel, options: MonteCarloOptions) -> None:
        if (cause := served.model.monte_carlo_unavailable) is not None:
            raise MonteCarloUnavailable(f"model {served.name!r} can't answer with error bars: {cause}")
        check_options(options)
        if options.passes > self._limits.passes:
            raise InputError(
                "passes", f"passes is {options.passes}; this server computes at most {self._limits.passes}"
            )


def _deadline(seconds: float | None) -> float:
    return float("inf") if seconds is None else perf_counter() + seconds
