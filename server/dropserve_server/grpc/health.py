"""grpc.health.v1.Health: Check and Watch, overall (the empty name) and per model.

grpcio-health-checking brings a servicer of its own, whose watches never end by themselves: a server
that waits for its calls to finish would wait for every watcher to leave.
"""

from __future__ import annotations

import asyncio
from typing import Any, TypeAlias

import grpc.aio
from grpc_health.v1 import health_pb2, health_pb2_grpc

OVERALL = ""

Context: TypeAlias = grpc.aio.ServicerContext[Any, Any]
_SERVING = health_pb2.HealthCheckResponse.SERVING
_NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING
_UNKNOWN = health_pb2.HealthCheckResponse.SERVICE_UNKNOWN


class HealthServicer(health_pb2_grpc.HealthServicer):
    """What is serving and what is not. For the event loop's thread."""

    def __init__(self) -> None:
        self._serving = {OVERALL: False}
        self._draining = False
        self._closed = False
        self._changed = asyncio.Event()

    def set(self, service: str, serving: bool) -> None:
        """Tell whether `service` is serving; while draining nothing is."""
        self._serving[service] = serving
        self._notify()

    def serving(self, service: str) -> bool | None:
        """Whether `service` is serving; None for a name that is not known. Any thread may ask."""
        serving = self._serving.get(service)
        return None if serving is None else serving and not self._draining

    def forget(self, service: str) -> None:
        """There is no such service any more."""
        self._serving.pop(service, None)
        self._notify()

    def all(self) -> dict[str, bool]:
        """Whether each service is serving."""
        return {service: serving and not self._draining for service, serving in self._serving.items()}

    def drain(self) -> None:
        """Nothing is serving from now on."""
        self._draining = True
        self._notify()

    def close(self) -> None:
        """End every watch."""
        self._closed = True
        self._notify()

    async def Check(
        self, request: health_pb2.HealthCheckRequest, context: Context
    ) -> health_pb2.HealthCheckResponse:
        """Tell the status now; NOT_FOUND for a name that is no model's."""
        status = self._status(request.service)
        if status == _UNKNOWN:
            await context.abort(grpc.StatusCode.NOT_FOUND, "no model or service of this name is known here")
        return health_pb2.HealthCheckResponse(status=status)

    async def Watch(self, request: health_pb2.HealthCheckRequest, context: Context) -> None:
        """Tell the status now and whenever it changes, until the server stops."""
        sent = None
        try:
            while not self._closed:
                # Taken before the status, so that no change between here and the wait is missed.
                changed = self._changed
                status = self._status(request.service)
                if status != sent:
                    await context.write(health_pb2.HealthCheckResponse(status=status))
                    sent = status
                await changed.wait()
        except asyncio.CancelledError:
            return  # the watcher left
        await context.abort(grpc.StatusCode.UNAVAILABLE, "the server is stopping")

    def _status(self, service: str) -> int:
        serving = self.serving(service)
        return _UNKNOWN if serving is None else _SERVING if serving else _NOT_SERVING

    def _notify(self) -> None:
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()
