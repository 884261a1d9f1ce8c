"""What can go wrong when a server is asked, and when.

::

    DropserveError                    every error of this package
    ├── InputError                    features or options are wrong; found here or by the server
    │                                 (INVALID_ARGUMENT, OUT_OF_RANGE); also a ValueError
    ├── ClosedError                   the client was used after it was closed
    ├── NotFoundError                 no such model, or no such version of it (NOT_FOUND)
    ├── MonteCarloUnavailable         error bars were asked of a model that can't give them
    │                                 (FAILED_PRECONDITION)
    ├── IntervalUnavailable           an interval was asked of a model that is not calibrated
    │                                 (FAILED_PRECONDITION)
    ├── LoadFailedError               an administrator's order can't be followed: what is in the
    │                                 repository can't be loaded (FAILED_PRECONDITION)
    ├── ResourceExhaustedError        over a limit of the server: ask for less; or its queue is full:
    │                                 ask again after `retry_seconds` (RESOURCE_EXHAUSTED)
    ├── DeadlineExceededError         no answer in time (DEADLINE_EXCEEDED); also a TimeoutError
    ├── CallCancelledError            the call was cancelled under way, not by its caller's task
    │                                 (CANCELLED)
    ├── UnavailableError              no server answers there, after retries (UNAVAILABLE);
    │                                 also a ConnectionError
    ├── UnauthenticatedError          the server wants credentials (UNAUTHENTICATED)
    ├── PermissionDeniedError         these credentials don't allow it (PERMISSION_DENIED)
    └── ServerError                   the server failed: a bug, or not a dropserve server (INTERNAL,
        │                             UNKNOWN, UNIMPLEMENTED and all other codes)
        └── ProtocolError             its answer can't be understood

No error of gRPC reaches a caller. Messages are one line.
"""

from __future__ import annotations

from typing import Final

import grpc


class DropserveError(Exception):
    """Base of every error this package raises on purpose.

    Attributes
    ----------
    code : grpc.StatusCode or None
        The status of the call. None where the error was found before any call was made.
    field : str
        The request's field that is wrong, e.g. ``"inputs"`` or ``"monte_carlo.passes"``; empty where no
        single field is.
    retry_seconds : float or None
        How long the server asks to wait before the call is made again, which it does where its queue is
        full; None where it does not say.
    """

    def __init__(
        self,
        message: str,
        *,
        code: grpc.StatusCode | None = None,
        field: str = "",
        retry_seconds: float | None = None,
    ) -> None:
        super().__init__(message)
        self.code = code
        self.field = field
        self.retry_seconds = retry_seconds


class InputError(DropserveError, ValueError):
    """Features or options are wrong; the message says which, and what would be right."""


class ClosedError(DropserveError):
    """The client was used after `close`."""


class NotFoundError(DropserveError):
    """The server has no such model, or no such version of it."""


class MonteCarloUnavailable(DropserveError):
    """The model has no dropout, or an operation after it that the Monte Carlo engine can't run."""


class IntervalUnavailable(DropserveError):
    """The model is not calibrated, or not in the mode asked for."""


class LoadFailedError(DropserveError):
    """What an administrator wants served can't be loaded; what was served before still is."""


class ResourceExhaustedError(DropserveError):
    """The request is over one of the server's limits, or the server's queue is full."""


class DeadlineExceededError(DropserveError, TimeoutError):
    """No answer came within the timeout."""


class CallCancelledError(DropserveError):
    """The call was cancelled under way: the client was closed, or the server gave up."""


class UnavailableError(DropserveError, ConnectionError):
    """No server answers at the address, or it is starting or draining; retries were in vain."""


class UnauthenticatedError(DropserveError):
    """The server wants credentials, or better ones."""


class PermissionDeniedError(DropserveError):
    """The credentials don't allow this call."""


class ServerError(DropserveError):
    """The server failed; its log says more. Or it is no dropserve server."""


class ProtocolError(ServerError):
    """The server's answer can't be understood: it contradicts its own shape or the request."""


BY_CODE: Final[dict[grpc.StatusCode, type[DropserveError]]] = {
    grpc.StatusCode.INVALID_ARGUMENT: InputError,
    grpc.StatusCode.OUT_OF_RANGE: InputError,
    grpc.StatusCode.NOT_FOUND: NotFoundError,
    grpc.StatusCode.FAILED_PRECONDITION: MonteCarloUnavailable,
    grpc.StatusCode.RESOURCE_EXHAUSTED: ResourceExhaustedError,
    grpc.StatusCode.DEADLINE_EXCEEDED: DeadlineExceededError,
    grpc.StatusCode.CANCELLED: CallCancelledError,
    grpc.StatusCode.UNAVAILABLE: UnavailableError,
    grpc.StatusCode.UNAUTHENTICATED: UnauthenticatedError,
    grpc.StatusCode.PERMISSION_DENIED: PermissionDeniedError,
}
"""Every code that is not here is a `ServerError`."""
