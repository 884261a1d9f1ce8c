"""Errors to gRPC statuses: the one table, the details that go with a status, and who is told."""

from __future__ import annotations

from asyncio import CancelledError, current_task
from dataclasses import fields
from functools import lru_cache
from math import ceil
from typing import Any, NoReturn

import grpc.aio
from google.rpc.error_details_pb2 import BadRequest, RetryInfo
from google.rpc.status_pb2 import Status
from grpc_status.rpc_status import to_status

from dropserve_models.errors import InputError, IntervalUnavailable, MemoryLimitError, MonteCarloUnavailable
from dropserve_models.prediction import MonteCarloOptions
from dropserve_server.errors import (
    DeadlineExpired,
    InvalidRequest,
    LimitExceeded,
    LoadFailed,
    ModelNotFound,
    QueueFull,
    Unavailable,
)

_CODES: dict[type[BaseException], grpc.StatusCode] = {
    InvalidRequest: grpc.StatusCode.INVALID_ARGUMENT,
    InputError: grpc.StatusCode.INVALID_ARGUMENT,
    ModelNotFound: grpc.StatusCode.NOT_FOUND,
    MonteCarloUnavailable: grpc.StatusCode.FAILED_PRECONDITION,
    IntervalUnavailable: grpc.StatusCode.FAILED_PRECONDITION,
    LoadFailed: grpc.StatusCode.FAILED_PRECONDITION,
    LimitExceeded: grpc.StatusCode.RESOURCE_EXHAUSTED,
    MemoryLimitError: grpc.StatusCode.RESOURCE_EXHAUSTED,
    DeadlineExpired: grpc.StatusCode.DEADLINE_EXCEEDED,
    CancelledError: grpc.StatusCode.CANCELLED,
    Unavailable: grpc.StatusCode.UNAVAILABLE,
}

# The models' names of what a caller may get wrong are those of `Model.predict`.
_FIELDS = {field.name: f"monte_carlo.{field.name}" for field in fields(MonteCarloOptions)}

INTERNAL_MESSAGE = "internal error; the server's log has the details"

# A status travels in a header, which has little room: peers accept 8 KiB, and the message is in it up to
# three times (percent-encoded, in the details, and in the field's violation).
_MESSAGE_BYTES = 1024


def code_of(error: BaseException) -> grpc.StatusCode:
    """The status code of an error; INTERNAL for one that nobody foresaw."""
    for base in type(error).__mro__:
        if base in _CODES:
            return _CODES[base]
    return grpc.StatusCode.INTERNAL


def field_of(error: BaseException) -> str:
    """The path of the request's field that an error is about; empty where it is about none."""
    if isinstance(error, InputError):
        return _FIELDS.get(error.field, error.field)
    if isinstance(error, IntervalUnavailable):
        return "interval"  # which tells it from other failed preconditions
    return error.field if isinstance(error, InvalidRequest) else ""


def message_of(error: BaseException) -> str:
    """What the caller is told."""
    if code_of(error) is grpc.StatusCode.INTERNAL:
        return INTERNAL_MESSAGE
    if isinstance(error, CancelledError):
        return "the call was cancelled"
    message = " ".join(str(error).splitlines())
    encoded = message.encode(errors="replace")
    return (
        message
        if len(encoded) <= _MESSAGE_BYTES
        else encoded[:_MESSAGE_BYTES].decode(errors="ignore") + "..."
    )


def status_of(error: BaseException) -> grpc.Status:
    """The status, with details: google.rpc.BadRequest of a wrong field, RetryInfo where the queue is full."""
    retry = _coarse(error.retry_seconds) if isinstance(error, QueueFull) else None
    return _status(code_of(error).value[0], message_of(error), field_of(error), retry)


async def fail(context: grpc.aio.ServicerContext[Any, Any], error: BaseException) -> NoReturn:
    """End a call with the status of an error, unless its caller has left: raise CancelledError then.

    gRPC cancels the task that answers a call whose caller has cancelled it or whose deadline has passed. A
    status set all the same goes nowhere, and what gRPC holds for it is never freed (grpc#43360). But a caller
    that is still there would wait for ever if CancelledError were raised (grpc#29248): where nothing but what
    the task waits for was cancelled, it is told.
    """
    task = current_task()
    if task is not None and task.cancelling():
        raise CancelledError from error
    await context.abort_with_status(status_of(error))


def _coarse(seconds: float) -> int:
    """In milliseconds, rounded up to two digits or so: refusals that come together are then all the same."""
    milliseconds = ceil(1000 * seconds)
    step: int = 10 ** max(0, len(str(milliseconds)) - 2)
    return -(-milliseconds // step) * step


@lru_cache(maxsize=256)  # a server that has too much to do says the same to many
def _status(code: int, message: str, field: str, retry_milliseconds: int | None) -> grpc.Status:
    status = Status(code=code, message=message)
    if field:
        violation = BadRequest.FieldViolation(field=field, description=message)
        status.details.add().Pack(BadRequest(field_violations=[violation]))
    if retry_milliseconds is not None:
        retry = RetryInfo()
        retry.retry_delay.FromMilliseconds(retry_milliseconds)
        status.details.add().Pack(retry)
    return to_status(status)
