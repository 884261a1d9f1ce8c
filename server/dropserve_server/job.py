"""One request's work, from its arrival to its answer."""

from __future__ import annotations

import asyncio
from time import perf_counter

from dropserve_models.prediction import FloatArray, MonteCarloOptions, Prediction
from dropserve_server.costs import Costs
from dropserve_server.errors import DeadlineExpired
from dropserve_server.metrics import ModeMetrics
from dropserve_server.served import ServedModel


class Demand:
    """What a request asks of its queue, which may be known before its features are.

    Attributes
    ----------
    served : ServedModel
        Who is to answer.
    options : MonteCarloOptions or None
        None: deterministic.
    deadline : float
        On `perf_counter`'s clock; once it has passed the work is not begun.
    queued : float
        When it came, on the same clock.
    rows, work : int
        What it counts for in a queue's bound, and in its costs.
    costs : Costs
        Of the model in the request's mode.
    metrics : ModeMetrics
        Likewise.
    """

    __slots__ = ("costs", "deadline", "metrics", "options", "queued", "rows", "served", "work")

    def __init__(
        self,
        served: ServedModel,
        rows: int,
        options: MonteCarloOptions | None = None,
        deadline: float = float("inf"),
    ) -> None:
        self.served = served
        self.options = options
        self.deadline = deadline
        self.rows = self.work = rows
        self.costs: Costs = served.costs.deterministic
        self.metrics: ModeMetrics = served.metrics.deterministic
        if options is not None:
            self.work *= options.passes
            self.costs = served.costs.adaptive if options.adaptive else served.costs.monte_carlo
            self.metrics = served.metrics.monte_carlo
        self.queued = perf_counter()


class PredictionJob(Demand):
    """One request's work, and the times at which it was queued, begun and finished (`perf_counter`, seconds).

    Attributes
    ----------
    features : ndarray [rows, features]
    result, error : Prediction or None, Exception or None
        What became of it; `outcome` says it to the event loop.
    expected_seconds : float
        What its queue expects computing it to take; 0 where nothing was expected.
    in_backlog : bool
        Whether its queue counts it.
    """

    __slots__ = (
        "_outcome", "begun", "error", "expected_seconds", "features", "finished", "in_backlog", "result",
    )  # fmt: skip

    def __init__(
        self,
        served: ServedModel,
        features: FloatArray,
        options: MonteCarloOptions | None = None,
        deadline: float = float("inf"),
    ) -> None:
        super().__init__(served, len(features), options, deadline)
        self.features = features
        self.begun = self.finished = self.queued
        self._outcome: asyncio.Future[Prediction] | None = None
        self.result: Prediction | None = None
        self.error: Exception | None = None
        self.expected_seconds = 0.0
        self.in_backlog = False

    @property
    def queue_seconds(self) -> float:
        """How long the job waited to be begun."""
        return self.begun - self.queued

    @property
    def compute_seconds(self) -> float:
        """How long the work took, and that of the requests computed with it."""
        return self.finished - self.begun

    @property
    def outcome(self) -> asyncio.Future[Prediction]:
        """The prediction, for the event loop's thread. Cancelling it drops the job, unless it has begun."""
        if self._outcome is None:
            self._outcome = asyncio.get_running_loop().create_future()
            self.settle()
        return self._outcome

    @property
    def dropped(self) -> bool:
        """Whether nobody waits for the outcome any more."""
        return self._outcome is not None and self._outcome.done()

    @property
    def waits(self) -> bool:
        """Whether its work has not begun."""
        return self.begun == self.queued

    @property
    def too_late(self) -> DeadlineExpired | None:
        """Why it would be in vain to compute it, its turn having come; None where it would not be."""
        if self.begun >= self.deadline:
            return DeadlineExpired("the deadline passed while the request was queued")
        # One that came to an idle server is tried whatever is expected: it may have become faster.
        waited, expected = self.begun - self.queued, self.expected_seconds
        if expected and waited > expected and self.begun + expected > self.deadline:
            return DeadlineExpired("the request waited until too little time was left to compute it")
        return None

    @property
    def over(self) -> bool:
        """Whether it is known what became of it."""
        return self.result is not None or self.error is not None

    def settle(self) -> None:
        """Tell those who wait for the outcome."""
        if self._outcome is None or self._outcome.done():
            return
        if self.error is not None:
            self._outcome.set_exception(self.error)
        elif self.result is not None:
            self._outcome.set_result(self.result)
