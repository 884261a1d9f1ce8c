"""The log's lines about requests: a share of the answered ones, and so many failed ones a second."""

from __future__ import annotations

import asyncio
import logging
from random import random
from time import perf_counter
from typing import Any

import grpc

from dropserve_server.grpc.outcome import Outcome
from dropserve_server.grpc.status import field_of
from dropserve_server.logs import LOGGER

log = logging.getLogger(LOGGER)

_LEVELS = {
    grpc.StatusCode.INTERNAL: logging.ERROR,
    grpc.StatusCode.RESOURCE_EXHAUSTED: logging.WARNING,
    grpc.StatusCode.UNAVAILABLE: logging.WARNING,
}
_WINDOW_SECONDS = 1.0


class _Window:
    """The failures of one status code in the present second."""

    __slots__ = ("ends", "logged", "suppressed")

    def __init__(self) -> None:
        self.ends = 0.0
        self.logged = self.suppressed = 0


class RequestLog:
    """Logs requests, within bounds: a storm of refusals must not become a storm of lines.

    For the event loop's thread.

    Parameters
    ----------
    answered_share : float
        Of the answered requests, how many are logged: from 0, none, to 1, all.
    failures_per_second : int
        Of the failed requests with one status code, how many are logged each second. How many more
        there were is logged when the second is over.
    """

    def __init__(self, answered_share: float = 0.0, failures_per_second: int = 10) -> None:
        self.answered_share = answered_share
        self._failures_per_second = failures_per_second
        self._windows: dict[grpc.StatusCode, _Window] = {}

    def picks(self) -> bool:
        """Whether to log this answered request."""
        return random() < self.answered_share

    def answered(self, outcome: Outcome, trace: dict[str, str]) -> None:
        """Log one; `trace` are the fields that lead to its trace, where it has one."""
        job = outcome.job
        work: dict[str, Any] = {}
        if job is not None:
            work = {
                "rows": job.rows,
                "queue_seconds": round(job.queue_seconds, 6),
                "compute_seconds": round(job.compute_seconds, 6),
            }
        if outcome.passes:
            work["passes"] = outcome.passes
        log.info("request answered", extra=_about(outcome) | work | trace)

    def failed(self, outcome: Outcome, trace: dict[str, str]) -> None:
        """Log one, or count it."""
        if not self._has_room(outcome.code, outcome.finished):
            return
        reason = {"field": field_of(outcome.error), "reason": str(outcome.error)} if outcome.error else {}
        log.log(
            _LEVELS.get(outcome.code, logging.INFO),
            "request failed",
            extra=_about(outcome) | {name: text for name, text in reason.items() if text} | trace,
            exc_info=outcome.error if outcome.code is grpc.StatusCode.INTERNAL else None,
        )

    def refused(self, code: grpc.StatusCode, method: str, peer: str, reason: str) -> None:
        """Log a call that was refused before it was a request, or count it."""
        if self._has_room(code, perf_counter()):
            about = {"code": code.name, "method": method, "peer": peer, "reason": reason}
            log.info("call refused", extra=about)

    def tell_suppressed(self) -> None:
        """Log how many failures were only counted, now rather than when their second is over."""
        for code in self._windows:
            self._tell_suppressed(code)

    def _has_room(self, code: grpc.StatusCode, now: float) -> bool:
        window = self._windows.setdefault(code, _Window())
        if now >= window.ends:
            window.ends = now + _WINDOW_SECONDS
            window.logged = 0
        if window.logged < self._failures_per_second:
            window.logged += 1
            return True
        window.suppressed += 1
        if window.suppressed == 1:
            asyncio.get_running_loop().call_later(window.ends - now, self._tell_suppressed, code)
        return False

    def _tell_suppressed(self, code: grpc.StatusCode) -> None:
        window = self._windows[code]
        count, window.suppressed = window.suppressed, 0
        if count:
            level = _LEVELS.get(code, logging.INFO)
            log.log(level, "more requests failed", extra={"code": code.name, "count": count})


def _about(outcome: Outcome) -> dict[str, Any]:
    about: dict[str, Any] = {
        "code": outcome.code.name,
        "model": outcome.model,
        "version": outcome.version,
        "mode": outcome.mode,
        "seconds": round(outcome.seconds, 6),
    }
    return about | {"request_id": outcome.request_id} if outcome.request_id else about
