"""Every prediction request of every gRPC service: counted, timed, and told to the log and the traces."""

from __future__ import annotations

import asyncio
from time import perf_counter, time
from types import TracebackType
from typing import TYPE_CHECKING, Self

import grpc

from dropserve_models.errors import MemoryLimitError
from dropserve_server.errors import DeadlineTooShort, LimitExceeded
from dropserve_server.grpc.outcome import Outcome
from dropserve_server.grpc.request_log import RequestLog
from dropserve_server.grpc.status import code_of
from dropserve_server.grpc.wire import MAX_REQUEST_ID_BYTES
from dropserve_server.metrics import MONTE_CARLO, Metrics, Mode
from dropserve_server.predictor import PredictionJob
from dropserve_server.served import ServedModel

if TYPE_CHECKING:
    from dropserve_server.grpc.spans import Tracer

# The caller's clock started before ours, so its cancellation may come a little before our deadline.
_DEADLINE_SLACK_SECONDS = 0.02


class Calls:
    """The requests being answered. For the event loop's thread.

    Attributes
    ----------
    holding : bool
        Whether an answer that is ready has to wait, by `released`, before it may leave.
    """

    def __init__(self, metrics: Metrics, log: RequestLog | None = None, tracer: Tracer | None = None) -> None:
        self.metrics = metrics
        self._log = log or RequestLog()
        self._tracer = tracer
        self.tells_answers = tracer is not None or self._log.answered_share > 0
        self.holding = False
        self._released = asyncio.Event()
        self._idle = asyncio.Event()
        self._idle.set()

    def begin(self, mode: Mode, request_id: str, seconds: float | None) -> Call:
        """A context manager around the answering of one request; `seconds` is what its caller allows."""
        return Call(self, mode, request_id, seconds)

    async def idle(self) -> None:
        """Wait until no request is being answered."""
        await self._idle.wait()

    async def hold(self, quiet: float, timeout: float) -> None:
        """Keep answers back until no request has come for `quiet` seconds, or `timeout` has passed.

        Callers who wait for an answer ask nothing new: this is how a server under load gets a moment in
        which no request is on its way to it.
        """
        self.holding = True
        deadline = perf_counter() + timeout
        inflight = -1
        while inflight != self.metrics.inflight and perf_counter() < deadline:
            inflight = self.metrics.inflight
            await asyncio.sleep(quiet)

    def release(self) -> None:
        """Let the answers go that were kept back."""
        self.holding = False
        self._released.set()

    async def released(self, seconds: float | None) -> None:
        """Wait for `release`, but not so long that a caller who allows these seconds would be late."""
        try:
            async with asyncio.timeout(None if seconds is None else seconds / 2):
                await self._released.wait()
        except TimeoutError:
            pass

    def entered(self) -> None:
        """One request more."""
        self.metrics.inflight += 1
        self._idle.clear()

    def left(self) -> None:
        """One request less."""
        self.metrics.inflight -= 1
        if not self.metrics.inflight:
            self._idle.set()

    def failed(self, outcome: Outcome) -> None:
        """Have a request that was not answered counted, traced and logged."""
        self.metrics.failure(outcome.model, outcome.version, outcome.mode, outcome.code.name).observe(
            outcome.seconds
        )
        if outcome.served is not None:
            outcome.served.metrics.failed(outcome.seconds)
        if outcome.error is not None and (reason := _rejection(outcome.error)):
            self.metrics.rejection(outcome.model, reason).inc()
        self.tell(outcome)

    def tell(self, outcome: Outcome) -> None:
        """Have a request traced, and logged where it failed or is among the logged share."""
        trace = {} if self._tracer is None else self._tracer.record(outcome)
        if outcome.code is not grpc.StatusCode.OK:
            self._log.failed(outcome, trace)
        elif self._log.picks():
            self._log.answered(outcome, trace)


class Call:
    """One request being answered; what it raises is recorded, and raised on.

    Attributes
    ----------
    served : ServedModel or None
        Who answers, as soon as that is known.
    job : PredictionJob or None
        What was computed, as soon as it is.
    """

    __slots__ = ("_calls", "_mode", "_request_id", "_seconds", "_started", "job", "served")

    def __init__(self, calls: Calls, mode: Mode, request_id: str, seconds: float | None) -> None:
        self._calls = calls
        self._mode: Mode = mode
        self._request_id = request_id
        self._seconds = seconds
        self.served: ServedModel | None = None
        self.job: PredictionJob | None = None

    def __enter__(self) -> Self:
        self._started = perf_counter()
        self._calls.entered()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._calls.left()
        finished = perf_counter()
        if error is not None:
            self._failed(error, finished)
        elif self.served is not None:
            metrics = self.served.metrics
            handles = metrics.monte_carlo if self._mode is MONTE_CARLO else metrics.deterministic
            handles.answered.inc()
            handles.duration.observe(finished - self._started)
            metrics.latest = time()
            if self._calls.tells_answers:
                self._calls.tell(self._outcome(grpc.StatusCode.OK, finished))

    def _failed(self, error: BaseException, finished: float) -> None:
        code = code_of(error)
        seconds = finished - self._started
        if (
            code is grpc.StatusCode.CANCELLED
            and self._seconds is not None
            and seconds > self._seconds - _DEADLINE_SLACK_SECONDS
        ):
            code = grpc.StatusCode.DEADLINE_EXCEEDED
        self._calls.failed(self._outcome(code, finished, error))

    def _outcome(self, code: grpc.StatusCode, finished: float, error: BaseException | None = None) -> Outcome:
        # Refused for its length, an id must not fill the log either.
        request_id = self._request_id[:MAX_REQUEST_ID_BYTES]
        return Outcome(code, self._mode, request_id, self._started, finished, self.served, self.job, error)


def _rejection(error: BaseException) -> str | None:
    """The label of a refusal for lack of room or over a limit; None for other failures."""
    if isinstance(error, LimitExceeded | DeadlineTooShort):
        return error.reason
    return "memory" if isinstance(error, MemoryLimitError) else None
