"""Who may call which method, where tokens are asked for."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, TypeAlias

import grpc
import grpc.aio

from dropserve_server.grpc.request_log import RequestLog
from dropserve_server.metrics import UNKNOWN, Metrics
from dropserve_server.reloading import Reloaded
from dropserve_server.tokens import Bearer, Role, Tokens

Details: TypeAlias = grpc.HandlerCallDetails
Handler: TypeAlias = "grpc.RpcMethodHandler[Any, Any]"

# By service, or by method where it differs from its service. None: everybody. What is not here takes admin.
_ROLES: dict[str, Role | None] = {
    "/grpc.health.v1.Health": None,  # orchestrators and balancers have no token
    "/grpc.reflection.v1alpha.ServerReflection": "predict",
    "/grpc.reflection.v1.ServerReflection": "predict",
    "/dropserve.v1.PredictionService": "predict",
    "/inference.GRPCInferenceService": "predict",
    "/inference.GRPCInferenceService/RepositoryModelLoad": "admin",
    "/inference.GRPCInferenceService/RepositoryModelUnload": "admin",
    "/dropserve.v1.ModelService": "admin",
}

_HEADER = "authorization"
_SCHEME = "bearer"


class Authentication(grpc.aio.ServerInterceptor):
    """Lets a call pass, or refuses it before any of its messages is read.

    A stream is looked at once, when it begins.
    """

    def __init__(self, tokens: Reloaded[Tokens], metrics: Metrics, request_log: RequestLog) -> None:
        self._tokens = tokens
        self._metrics = metrics
        self._log = request_log

    async def intercept_service(
        self, continuation: Callable[[Details], Awaitable[Handler | None]], handler_call_details: Details
    ) -> Handler | None:
        """Find the method's handler, or one that refuses."""
        role = role_for(handler_call_details.method)
        if role is None:
            return await continuation(handler_call_details)
        token = _token_of(handler_call_details)
        bearer = self._tokens.value.bearer_of(token) if token else None
        if bearer is not None and bearer.may(role):
            return await continuation(handler_call_details)
        return self._refusal(handler_call_details.method, role, bearer, token)

    def _refusal(self, method: str, role: Role, bearer: Bearer | None, token: str | None) -> Handler:
        if bearer is not None:
            code = grpc.StatusCode.PERMISSION_DENIED
            message = f"the token {bearer.name} has the role {bearer.role}; this takes {role}"
        else:
            code = grpc.StatusCode.UNAUTHENTICATED
            message = (
                "the token is not one of this server's"
                if token
                else f"a token is needed: send it as the metadata '{_HEADER}: Bearer TOKEN'"
            )
        self._metrics.rejected.labels(UNKNOWN, code.name.lower()).inc()

        async def refuse(_requests: object, context: grpc.aio.ServicerContext[Any, Any]) -> None:
            self._log.refused(code, method, context.peer(), message)
            await context.abort(code, message)

        # Whatever the method is: as a stream it can be answered before the caller has sent all it wants to.
        return grpc.stream_stream_rpc_method_handler(refuse)


def role_for(method: str) -> Role | None:
    """What a method takes, by its full name, e.g. ``/dropserve.v1.PredictionService/Predict``."""
    if method in _ROLES:
        return _ROLES[method]
    return _ROLES.get(method.rpartition("/")[0], "admin")


def _token_of(details: Details) -> str | None:
    for key, value in details.invocation_metadata or ():
        if key == _HEADER:
            scheme, _, token = str(value).partition(" ")
            return token.strip() if scheme.lower() == _SCHEME else None
    return None
