"""grpc.health.v1.Health: Check and Watch, overall (the empty name), per model, and per MODEL/VERSION.

grpcio-health-checking brings a servicer of its own, whose watches never end by themselves: a server
that waits for its calls to finish would wait for every watcher to leave.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Any, TypeAlias

import grpc.aio
from grpc_health.v1 import health_pb2, health_pb2_grpc

from dropserve_server.served import VersionStatus

OVERALL = ""

Context: TypeAlias = grpc.aio.ServicerContext[Any, Any]
_SERVING = health_pb2.HealthCheckResponse.SERVING
_NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING
_UNKNOWN = health_pb2.HealthCheckResponse.SERVICE_UNKNOWN


class HealthServicer(health_pb2_grpc.HealthServicer):
    """What is serving and what is not. For the event loop's thread."""

    def __init__(self) -> None:
        self._serving = {OVERALL: False}
        self._versions: dict[str, dict[str, bool]] = {}
        self._failed: dict[str, list[int]] = {}
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

    def set_versions(self, model: str, statuses: Iterable[VersionStatus]) -> None:
        """Tell how the versions of a model stand."""
        wanted = [status for status in statuses if status.state != "unloaded"]
        self._versions[model] = {f"{model}/{each.version}": each.state == "serving" for each in wanted}
        self._failed[model] = [each.version for each in wanted if each.reason]
        self._notify()

    def forget(self, service: str) -> None:
        """There is no such service any more."""
        self._serving.pop(service, None)
        self._versions.pop(service, None)
        self._failed.pop(service, None)
        self._notify()

    def all(self) -> dict[str, bool]:
        """Whether each service, and each MODEL/VERSION, is serving. Any thread may ask."""
        every = dict(self._serving)
        for versions in self._versions.copy().values():
            every |= versions
        return {name: serving and not self._draining for name, serving in every.items()}

    def failed(self) -> dict[str, list[int]]:
        """The versions that could not be loaded as they are now, by model, ascending. Any thread may ask."""
        return {model: versions for model, versions in sorted(self._failed.copy().items()) if versions}

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
        # Once the watcher has left, CancelledError goes on to gRPC; see `fail`.
        while not self._closed:
            # Taken before the status, so that no change between here and the wait is missed.
            changed = self._changed
            status = self._status(request.service)
            if status != sent:
                await context.write(health_pb2.HealthCheckResponse(status=status))
                sent = status
            await changed.wait()
        await context.abort(grpc.StatusCode.UNAVAILABLE, "the server is stopping")

    def _status(self, service: str) -> int:
        serving = self.serving(service)
        if serving is None:
            loaded = self._versions.get(service.rpartition("/")[0], {}).get(service)
            serving = None if loaded is None else loaded and not self._draining
        return _UNKNOWN if serving is None else _SERVING if serving else _NOT_SERVING

    def _notify(self) -> None:
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()
