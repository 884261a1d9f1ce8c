"""Every error's status code, message and details."""

from __future__ import annotations

import asyncio
from asyncio import CancelledError
from collections.abc import Awaitable
from typing import NoReturn

import grpc.aio
import pytest
from google.rpc.error_details_pb2 import BadRequest, RetryInfo
from google.rpc.status_pb2 import Status

from dropserve_models import errors as models_errors
from dropserve_models.errors import InputError, IntervalUnavailable, MemoryLimitError, MonteCarloUnavailable
from dropserve_server import errors
from dropserve_server.errors import (
    DeadlineExpired,
    DeadlineTooShort,
    InvalidRequest,
    LimitExceeded,
    ModelNotFound,
    QueueFull,
    Unavailable,
)
from dropserve_server.grpc.status import INTERNAL_MESSAGE, code_of, fail, field_of, message_of, status_of


@pytest.mark.parametrize(
    ("error", "code", "field"),
    [
        (InvalidRequest("inputs.shape", "why"), "INVALID_ARGUMENT", "inputs.shape"),
        (InputError("inputs", "why"), "INVALID_ARGUMENT", "inputs"),
        (InputError("passes", "why"), "INVALID_ARGUMENT", "monte_carlo.passes"),
        (InputError("seed", "why"), "INVALID_ARGUMENT", "monte_carlo.seed"),
        (InputError("quantiles", "why"), "INVALID_ARGUMENT", "monte_carlo.quantiles"),
        (InputError("masks", "why"), "INVALID_ARGUMENT", "monte_carlo.masks"),
        (InputError("mean_tolerance", "why"), "INVALID_ARGUMENT", "monte_carlo.mean_tolerance"),
        (ModelNotFound("why"), "NOT_FOUND", ""),
        (MonteCarloUnavailable("why"), "FAILED_PRECONDITION", ""),
        (IntervalUnavailable("why"), "FAILED_PRECONDITION", "interval"),
        (InputError("interval", "why"), "INVALID_ARGUMENT", "interval"),
        (LimitExceeded("rows", "why"), "RESOURCE_EXHAUSTED", ""),
        (QueueFull("why"), "RESOURCE_EXHAUSTED", ""),
        (MemoryLimitError("why"), "RESOURCE_EXHAUSTED", ""),
        (DeadlineExpired("why"), "DEADLINE_EXCEEDED", ""),
        (DeadlineTooShort("why"), "DEADLINE_EXCEEDED", ""),
        (Unavailable("why"), "UNAVAILABLE", ""),
    ],
)
def test_code_message_and_details(error: Exception, code: str, field: str) -> None:
    status = status_of(error)
    assert status.code is grpc.StatusCode[code]
    assert status.details == "why"
    assert field_of(error) == field
    ((key, packed),) = status.trailing_metadata
    assert key == "grpc-status-details-bin"
    rich = Status.FromString(packed)
    assert (rich.code, rich.message) == (status.code.value[0], "why")
    violations = []
    for detail in rich.details:
        bad_request = BadRequest()
        if detail.Unpack(bad_request):
            violations += [(v.field, v.description) for v in bad_request.field_violations]
    assert violations == ([(field, "why")] if field else [])


def test_a_full_queue_tells_when_to_try_again() -> None:
    ((_, packed),) = status_of(QueueFull("why", 1.2345678)).trailing_metadata
    (detail,) = Status.FromString(packed).details
    retry = RetryInfo()
    assert detail.Unpack(retry)
    assert retry.retry_delay.ToMilliseconds() == 1300  # never too soon, and the same for many


@pytest.mark.parametrize(
    ("seconds", "milliseconds"),
    [(0, 0), (0.0001, 1), (0.099, 99), (0.1001, 110), (9.91, 10_000), (12.3, 13_000)],
)
def test_the_delay_before_another_try_is_rounded_up(seconds: float, milliseconds: int) -> None:
    ((_, packed),) = status_of(QueueFull("why", seconds)).trailing_metadata
    retry = RetryInfo()
    assert Status.FromString(packed).details[0].Unpack(retry)
    assert retry.retry_delay.ToMilliseconds() == milliseconds


@pytest.mark.parametrize(
    "error", [ValueError("secret"), KeyError("secret"), models_errors.ArtifactError("secret")]
)
def test_what_nobody_foresaw_is_internal_and_says_nothing(error: Exception) -> None:
    status = status_of(error)
    assert status.code is grpc.StatusCode.INTERNAL
    assert status.details == INTERNAL_MESSAGE
    assert b"secret" not in b"".join(bytes(value) for _, value in status.trailing_metadata)  # type: ignore[arg-type]


def test_cancelled_calls_get_a_status_too() -> None:
    assert code_of(CancelledError()) is grpc.StatusCode.CANCELLED
    assert message_of(CancelledError()) == "the call was cancelled"


class Context:
    """Of a call: the statuses it was ended with."""

    def __init__(self) -> None:
        self.told: list[grpc.StatusCode] = []

    async def abort_with_status(self, status: grpc.Status) -> NoReturn:
        self.told.append(status.code)
        raise grpc.aio.AbortError


async def handle(context: Context, work: Awaitable[object]) -> None:
    try:
        await work
    except (Exception, CancelledError) as error:  # noqa: BLE001  # as handlers do
        await fail(context, error)  # type: ignore[arg-type]


@pytest.mark.parametrize("error", [CancelledError(), InvalidRequest("", "why"), ValueError()])
def test_who_is_still_there_is_told(error: BaseException) -> None:
    async def scenario() -> None:
        work: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        work.cancel() if isinstance(error, CancelledError) else work.set_exception(error)
        context = Context()
        with pytest.raises(grpc.aio.AbortError):
            await handle(context, work)
        assert context.told == [code_of(error)]

    asyncio.run(scenario())


@pytest.mark.parametrize("error", [None, InvalidRequest("", "why")])
def test_who_has_left_is_not(error: Exception | None) -> None:
    """gRPC would never free what it holds for the status (grpc#43360)."""

    async def scenario() -> None:
        async def work() -> None:
            try:
                await asyncio.sleep(30)
            except CancelledError:
                if error is not None:
                    raise error from None
                raise

        context = Context()
        handler = asyncio.ensure_future(handle(context, work()))
        await asyncio.sleep(0)
        handler.cancel()  # as gRPC does
        with pytest.raises(CancelledError):
            await handler
        assert context.told == []

    asyncio.run(scenario())


def test_every_error_a_request_can_raise_has_a_code_of_its_own() -> None:
    startup_only = {errors.ServerError, errors.SettingsError, errors.StartupError}
    classes = {c for c in vars(errors).values() if isinstance(c, type) and issubclass(c, errors.ServerError)}
    for kind in classes - startup_only:
        assert code_of(kind.__new__(kind)) is not grpc.StatusCode.INTERNAL, kind


@pytest.mark.parametrize("character", ["x", "é", "𝛴"])
def test_a_status_fits_a_header_whatever_the_message(character: str) -> None:
    status = status_of(InvalidRequest("inputs", character * 100_000))
    encoded = sum(1 if ord(c) < 128 else 3 * len(c.encode()) for c in status.details)
    details = sum(len(value) * 4 // 3 for _, value in status.trailing_metadata)
    assert encoded + details < 8192


def test_a_message_is_one_line() -> None:
    assert message_of(ModelNotFound("first\nsecond\r\nthird")) == "first second third"
