"""Requests that can't be decoded: INVALID_ARGUMENT, not gRPC's UNKNOWN with a stack trace in the log."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from inspect import isasyncgenfunction
from typing import Any, TypeAlias, TypeVar

import grpc
import grpc.aio
from google.protobuf.message import DecodeError

from dropserve_server.errors import InvalidRequest
from dropserve_server.grpc.status import status_of

Servicer = TypeVar("Servicer")
Handler: TypeAlias = "grpc.RpcMethodHandler[Any, Any]"
Context: TypeAlias = grpc.aio.ServicerContext[Any, Any]


def add_service(
    server: grpc.aio.Server,
    add_to_server: Callable[[Servicer, Any], None],
    servicer: Servicer,
    before: Callable[[grpc.GenericRpcHandler], grpc.GenericRpcHandler] = lambda handlers: handlers,
) -> None:
    """Add a service to a server, by the function that was generated for it.

    `before` puts something before its handlers.
    """
    add_to_server(servicer, _Registrar(server, before))


class _Registrar:
    """Stands for the server where generated code registers handlers."""

    def __init__(
        self, server: grpc.aio.Server, before: Callable[[grpc.GenericRpcHandler], grpc.GenericRpcHandler]
    ) -> None:
        self._server = server
        self._before = before

    def add_generic_rpc_handlers(self, handlers: Sequence[grpc.GenericRpcHandler]) -> None:
        """Do nothing: the same handlers come with their names."""

    def add_registered_method_handlers(self, service: str, handlers: Mapping[str, Handler]) -> None:
        """Add a service's handlers, found by their names.

        Not registered with gRPC's core as generated code does on top: for every call that comes, the server's
        loop would then wait anew for the next call of each method there is, which takes a tenth of its time.
        """
        checked = {name: _checked(handler) for name, handler in handlers.items()}
        found = grpc.method_handlers_generic_handler(service, checked)
        self._server.add_generic_rpc_handlers((self._before(found),))


def _checked(handler: Handler) -> Handler:
    make: Any
    if handler.request_streaming:
        decode = _or_raise(handler.request_deserializer)
        if handler.response_streaming:
            make, answer = grpc.stream_stream_rpc_method_handler, handler.stream_stream
        else:
            make, answer = grpc.stream_unary_rpc_method_handler, handler.stream_unary
    else:
        decode = _or_error(handler.request_deserializer)
        if handler.response_streaming:
            make, answer = grpc.unary_stream_rpc_method_handler, handler.unary_stream
        else:
            make, answer = grpc.unary_unary_rpc_method_handler, handler.unary_unary
    checked: Handler = make(_refusing(answer), decode, handler.response_serializer)
    return checked


def _or_raise(decode: Any) -> Callable[[bytes], Any]:
    def decoded(message: bytes) -> Any:
        try:
            return decode(message)
        except DecodeError:
            raise InvalidRequest(
                "", "the request can't be decoded: it is no message of this method"
            ) from None

    return decoded


def _or_error(decode: Any) -> Callable[[bytes], Any]:
    """As `_or_raise`, with the error in the request's place: gRPC decodes where nobody can catch it."""
    checked = _or_raise(decode)

    def decoded(message: bytes) -> Any:
        try:
            return checked(message)
        except InvalidRequest as error:
            return error

    return decoded


def _refusing(answer: Any) -> Callable[[Any, Context], Any]:
    """Answer as `answer` does, and what can't be decoded with its status."""

    async def one(request: Any, context: Context) -> Any:
        try:
            if isinstance(request, InvalidRequest):
                raise request
            return await answer(request, context)
        except InvalidRequest as error:
            return await context.abort_with_status(status_of(error))

    async def several(request: Any, context: Context) -> Any:
        try:
            if isinstance(request, InvalidRequest):
                raise request
            async for response in answer(request, context):
                yield response
        except InvalidRequest as error:
            await context.abort_with_status(status_of(error))

    return several if isasyncgenfunction(answer) else one
