"""Every prediction request of every gRPC service: counted, timed, and logged where it failed."""

from __future__ import annotations

import asyncio
import logging
from time import perf_counter
from types import TracebackType
from typing import Self

import grpc

from dropserve_models.errors import MemoryLimitError
from dropserve_server.errors import LimitExceeded
from dropserve_server.grpc.status import code_of, field_of
from dropserve_server.logs import LOGGER
from dropserve_server.metrics import MONTE_CARLO, UNKNOWN, Metrics, Mode
from dropserve_server.served import ServedModel

log = logging.getLogger(LOGGER)

# The caller's clock started before ours, so its cancellation may come a little before our deadline.
_DEADLINE_SLACK_SECONDS = 0.02

_LEVELS = {
    grpc.StatusCode.INTERNAL: logging.ERROR,
    grpc.StatusCode.RESOURCE_EXHAUSTED: logging.WARNING,
    grpc.StatusCode.UNAVAILABLE: logging.WARNING,
}


class Calls:
    """The requests being answered. For the event loop's thread."""

    def __init__(self, metrics: Metrics) -> None:
        self.metrics = metrics
        self._idle = asyncio.Event()
        self._idle.set()

    def begin(self, mode: Mode, request_id: str, seconds: float | None) -> Call:
        """A context manager around the answering of one request; `seconds` is what its caller allows."""
        return Call(self, mode, request_id, seconds)

    async def idle(self) -> None:
        """Wait until no request is being answered."""
        await self._idle.wait()

    def entered(self) -> None:
        """One request more."""
        self.metrics.inflight += 1
        self._idle.clear()

    def left(self) -> None:
        """One request less."""
        self.metrics.inflight -= 1
        if not self.metrics.inflight:
            self._idle.set()


class Call:
    """One request being answered; what it raises is recorded, and raised on.

    Attributes
    ----------
    served : ServedModel or None
        Who answers, as soon as that is known.
    """

    __slots__ = ("_calls", "_mode", "_request_id", "_seconds", "_started", "served")

    def __init__(self, calls: Calls, mode: Mode, request_id: str, seconds: float | None) -> None:
        self._calls = calls
        self._mode: Mode = mode
        self._request_id = request_id
        self._seconds = seconds
        self.served: ServedModel | None = None

    def __enter__(self) -> Self:
        self._started = perf_counter()
        self._calls.entered()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._calls.left()
        seconds = perf_counter() - self._started
        if error is not None:
            self._failed(error, seconds)
        elif self.served is not None:
            metrics = self.served.metrics
            handles = metrics.monte_carlo if self._mode is MONTE_CARLO else metrics.deterministic
            handles.answered.inc()
            handles.duration.observe(seconds)

    def _failed(self, error: BaseException, seconds: float) -> None:
        families = self._calls.metrics
        model, version = (self.served.name, self.served.version) if self.served else (UNKNOWN, UNKNOWN)
        code = code_of(error)
        if (
            code is grpc.StatusCode.CANCELLED
            and self._seconds is not None
            and seconds > self._seconds - _DEADLINE_SLACK_SECONDS
        ):
            code = grpc.StatusCode.DEADLINE_EXCEEDED
        families.requests.labels(model, version, self._mode, code.name).inc()
        families.request_duration.labels(model, self._mode).observe(seconds)
        if isinstance(error, LimitExceeded | MemoryLimitError):
            reason = error.reason if isinstance(error, LimitExceeded) else "memory"
            families.rejected.labels(model, reason).inc()
        about = {
            "code": code.name,
            "model": model,
            "version": version,
            "mode": self._mode,
            "request_id": self._request_id,
            "field": field_of(error),
            "reason": str(error),
            "seconds": round(seconds, 4),
        }
        log.log(
            _LEVELS.get(code, logging.INFO),
            "request failed",
            extra={name: value for name, value in about.items() if value != ""},
            exc_info=error if code is grpc.StatusCode.INTERNAL else None,
        )
