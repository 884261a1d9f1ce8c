"""Requests announced in their call's metadata, and refused unread where there is no room for them.

A call's metadata come before its message. gRPC would read the message first, which takes the longer the
larger it is: in an overload a server would spend its time reading what it then refuses. On the wire a unary
call is one that streams a single request. So it is answered here as if it were: its message is read once it
is known that it may be taken, or never.

An announcement is its caller's word, and nothing else: who announces less than they send gets the answer or
the refusal that the message itself gets; who announces more is refused for it.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache, partial
from time import perf_counter
from typing import Any, TypeAlias

import grpc
import grpc.aio

from dropserve_models.prediction import MonteCarloOptions
from dropserve_server.errors import DeadlineTooShort, InvalidRequest, QueueFull, ServerError
from dropserve_server.grpc.calls import Calls
from dropserve_server.grpc.outcome import Outcome
from dropserve_server.grpc.status import code_of, fail, status_of
from dropserve_server.metrics import DETERMINISTIC, MONTE_CARLO
from dropserve_server.predictor import Predictor
from dropserve_server.repository import Repository
from dropserve_server.served import ServedModel

Handler: TypeAlias = "grpc.RpcMethodHandler[Any, Any]"
Context: TypeAlias = grpc.aio.ServicerContext[Any, Any]
Metadata: TypeAlias = tuple[tuple[str, str | bytes], ...]

_KEYS = "dropserve-"
MODEL, VERSION, ROWS, PASSES = (_KEYS + what for what in ("model", "version", "rows", "passes"))
_MAX_DIGITS = 10

# Unary methods, all of whose requests are predictions.
_METHODS = frozenset(
    {"/dropserve.v1.PredictionService/Predict", "/inference.GRPCInferenceService/ModelInfer"}
)


@dataclass(frozen=True, slots=True)
class Announcement:
    """What a caller says that its message will ask for.

    Attributes
    ----------
    model, version : str
        As in the message; no version: the default one.
    rows : int
    options : MonteCarloOptions or None
        As many passes as are announced; None: deterministic.
    """

    model: str
    version: str
    rows: int
    options: MonteCarloOptions | None


def read_announcement(metadata: Metadata, default_passes: int) -> Announcement | None:
    """The announcement in a call's metadata; None where there is none, or none that can be understood."""
    told = tuple(entry for entry in metadata if entry[0].startswith(_KEYS))
    return _read(told, default_passes) if told else None


@lru_cache(maxsize=256)  # callers that flood a server say the same
def _read(metadata: Metadata, default_passes: int) -> Announcement | None:
    found = dict(metadata)
    if MODEL not in found or ROWS not in found:
        return None
    numbers = found[ROWS], found.get(PASSES, "0")
    if not all(str(number).isdecimal() and len(number) <= _MAX_DIGITS for number in numbers):
        return None
    rows, passes = map(int, numbers)
    options = MonteCarloOptions(passes=passes or default_passes) if PASSES in found else None
    return Announcement(str(found[MODEL]), str(found.get(VERSION, "")), rows, options)


@dataclass(frozen=True, slots=True)
class _Expected:
    """A request that was announced, for a model that is served."""

    served: ServedModel
    rows: int
    options: MonteCarloOptions | None


class Reception:
    """Refuses announced requests that there is no room for, by the rule for those that were read."""

    def __init__(
        self, repository: Repository, predictor: Predictor, calls: Calls, default_passes: int
    ) -> None:
        self._repository = repository
        self._predictor = predictor
        self._calls = calls
        self._default_passes = default_passes

    def expected(self, metadata: Metadata) -> _Expected | None:
        """What a call's metadata announce, where it matters: work for a mode that has some already."""
        announced = read_announcement(metadata, self._default_passes)
        if announced is None or self._predictor.is_idle(announced.options):
            return None
        try:
            served = self._repository.find(announced.model, announced.version)
        except ServerError:
            return None  # the message may name another model; if not, it is refused for that
        return _Expected(served, announced.rows, announced.options)

    async def receive(
        self, handler: Handler, expected: _Expected, _requests: object, context: Context
    ) -> Any:
        """Answer a call as the unary `handler` does, or refuse it before its message is read."""
        if refusal := self._refusal(expected, context.time_remaining()):
            await context.abort_with_status(status_of(refusal))
        try:
            request = await context.read()
            if request is grpc.aio.EOF:
                raise InvalidRequest("", "the call carries no message")
        except (InvalidRequest, asyncio.CancelledError) as error:
            with suppress(grpc.aio.InternalError):  # the call has ended where its message was too large
                await fail(context, error)
            return None
        answer: Any = handler.unary_unary
        return await answer(request, context)

    def _refusal(self, expected: _Expected, seconds: float | None) -> Exception | None:
        """Why it can't be taken, counted and logged like that of one that was read."""
        served, options = expected.served, expected.options
        started = perf_counter()
        try:
            self._predictor.check_room(served, expected.rows, options, seconds)
        except (QueueFull, DeadlineTooShort) as error:
            mode = DETERMINISTIC if options is None else MONTE_CARLO
            finished = perf_counter()
            self._calls.failed(Outcome(code_of(error), mode, "", started, finished, served, None, error))
            return error
        return None


class Received(grpc.GenericRpcHandler):
    """The methods of a service, with the reception before those that predict.

    Parameters
    ----------
    reception : Reception
    behind : grpc.GenericRpcHandler
        Finds the service's own handlers.
    """

    def __init__(self, reception: Reception, behind: grpc.GenericRpcHandler) -> None:
        self._reception = reception
        self._behind = behind

    def service(self, details: grpc.HandlerCallDetails) -> Handler | None:
        """The handler of a call, whose message is still to come."""
        handler = self._behind.service(details)
        if handler is None or details.method not in _METHODS:
            return handler
        expected = self._reception.expected(details.invocation_metadata)
        if expected is None:
            return handler
        return grpc.stream_unary_rpc_method_handler(
            partial(self._reception.receive, handler, expected),
            handler.request_deserializer,
            handler.response_serializer,
        )
