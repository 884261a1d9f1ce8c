"""The life of a server: startup, main loop, drain, shutdown."""

from __future__ import annotations

import asyncio
import gc
import logging
import os
from collections.abc import Coroutine
from dataclasses import dataclass
from functools import partial
from importlib.metadata import version
from time import perf_counter
from typing import Any

import grpc.aio

from dropserve_models import load
from dropserve_server import signals
from dropserve_server.administration import Administration
from dropserve_server.grpc import tracing
from dropserve_server.grpc.administration import ModelServicer
from dropserve_server.grpc.announcement import Reception
from dropserve_server.grpc.calls import Calls
from dropserve_server.grpc.health import OVERALL, HealthServicer
from dropserve_server.grpc.listener import (
    OPEN_INFERENCE_SERVICE,
    PREDICTION_SERVICE,
    listen,
    listen_to_administrators,
)
from dropserve_server.grpc.open_inference import OpenInferenceServicer
from dropserve_server.grpc.prediction import PredictionServicer
from dropserve_server.grpc.protection import Protection
from dropserve_server.grpc.request_log import RequestLog
from dropserve_server.lanes import lanes_of
from dropserve_server.logs import LOGGER
from dropserve_server.metrics import Metrics
from dropserve_server.metrics_http import MetricsServer
from dropserve_server.predictor import Limits, Predictor
from dropserve_server.repository import Repository
from dropserve_server.settings import Settings
from dropserve_server.team import Team

_LOADING_THREADS = 4
_REPORT_SECONDS = 0.25  # how old may be what is known of a worker: its gauges, its health
_QUIET_SECONDS = 0.02  # without a new request, before connections are closed
_HOLD_SECONDS = 0.2  # that it is waited for at most
_FLUSH_SECONDS = 1.0  # for answers that are ready to reach their callers
_ANSWER_OVERHEAD_BYTES = 4096  # what is not tensors in an answer: names, ids, timings

log = logging.getLogger(LOGGER)


@dataclass(frozen=True, slots=True)
class Ending:
    """How a server's life ended.

    Attributes
    ----------
    cut_off : int
        Requests that were not answered.
    computing : bool
        Whether threads are still at work on what nobody waits for any more: requests, models being loaded.
    """

    cut_off: int
    computing: bool


class Server:
    """A server, from its start to its end. Make it and run it in one event loop, once.

    Parameters
    ----------
    team : Team, optional
        The workers this server is one of: it then opens the port only with its models loaded, leaves the
        metrics page and signals for an abort to the supervisor. None: it serves alone.

    Raises
    ------
    StartupError
        The TLS certificate can't be used.
    SettingsError
        The token file is wrong.
    """

    def __init__(self, settings: Settings, team: Team | None = None) -> None:
        self._settings = settings
        self._team = team
        self._started = perf_counter()
        self._stopping = asyncio.Event()  # the first signal: drain, then stop
        self._aborting = asyncio.Event()  # the second: stop now

        self._metrics = Metrics()
        self._repository = Repository(
            settings.repository,
            partial(
                load,
                device=settings.device,
                threads=settings.threads,
                memory_bytes=settings.max_memory_bytes,
                max_bytes=settings.max_artifact_bytes,
            ),
            self._metrics,
            versions=settings.versions,
            models=settings.policies(),
            orders=team.orders if team else None,
            warm_up=settings.warm_up,
        )
        self._lanes = lanes_of(settings)
        limits = Limits(
            settings.max_rows, settings.max_passes, settings.max_message_bytes - _ANSWER_OVERHEAD_BYTES
        )
        self._tracer = tracing.start(os.environ)
        self._request_log = RequestLog(settings.log_requests, settings.log_failures_per_second)
        self._calls = Calls(self._metrics, self._request_log, self._tracer)
        self._health = HealthServicer()
        predictor = Predictor(limits, *self._lanes)
        self._prediction = PredictionServicer(
            self._repository,
            predictor,
            self._calls,
            default_passes=settings.default_passes,
            stream_concurrency=settings.stream_concurrency,
        )
        self._open_inference = OpenInferenceServicer(
            self._repository, predictor, self._calls, self._health, settings
        )
        administration = Administration(self._repository)
        self._models = ModelServicer(team.administered(administration) if team else administration)
        self._reception = Reception(self._repository, predictor, self._calls, settings.default_passes)
        self._protection = Protection(settings, self._metrics, self._request_log)
        self._grpc: grpc.aio.Server | None = None
        self._admin: grpc.aio.Server | None = None
        self._http: MetricsServer | None = None

    async def run(self) -> Ending:
        """Serve until a signal says to stop.

        Raises
        ------
        StartupError
            A port can't be bound, or the TLS certificate can't be used.
        DeviceError
            The device asked for is not there.
        ArtifactError
            The repository can't be listed.
        """
        signals.heed(self._on_signal, self.stop)
        following = asyncio.ensure_future(self._protection.keep_up_to_date())
        try:
            if await _finishes(self._startup(), unless=self._stopping):
                await _finishes(self._repository.watch(self._settings.poll_seconds), unless=self._stopping)
            await _finishes(self._drain(), unless=self._aborting)
        finally:
            following.cancel()
            ending = await self._shutdown()
        return ending

    def stop(self) -> None:
        """Drain, then stop."""
        self._stopping.set()

    def abort(self) -> None:
        """Stop now."""
        self._stopping.set()
        self._aborting.set()

    def _on_signal(self) -> None:
        # A worker may get the signal and its supervisor's word for it: the second is no impatience.
        self.abort() if self._stopping.is_set() and self._team is None else self.stop()

    async def _startup(self) -> None:
        if self._team is None:
            await self._listen()
            await self._load()
        else:
            self._report(self._team)
            await self._load()
            await self._team.loaded()
            await self._listen()
            self._team.report(self._health.all(), self._health.failed())
            self._team.listening()

    def _report(self, team: Team) -> None:
        self._metrics.refresh()
        team.report(self._health.all(), self._health.failed())
        asyncio.get_running_loop().call_later(_REPORT_SECONDS, self._report, team)

    async def _listen(self) -> None:
        settings = self._settings
        about: dict[str, object] = {"host": settings.host}
        interceptors = [self._tracer.interceptor] if self._tracer else []
        services = self._prediction, self._open_inference, self._health
        server, about["grpc_port"] = listen(
            settings, self._protection, *services, self._reception, interceptors
        )
        if (admin := listen_to_administrators(settings, self._protection, self._models)) is not None:
            self._admin, about["admin_port"] = admin
        if self._team is None:
            registry, health = self._metrics.registry, self._health
            self._http = MetricsServer(settings.metrics_host, settings.metrics_port, registry, health)
            about["metrics_port"] = self._http.port
        await server.start()
        self._grpc = server
        if self._admin is not None:
            await self._admin.start()
        log.info("listening", extra=about | {"pid": os.getpid(), "version": version("dropserve")})

    async def _load(self) -> None:
        await self._repository.load(_LOADING_THREADS, self._tell)
        # What lives from now on until the end need not be looked through at every garbage collection.
        gc.collect()
        gc.freeze()
        if not self._repository:
            log.error(
                "no model is served",
                extra={"repository": str(self._settings.repository), "expected": "MODEL/VERSION/model.onnx"},
            )
            return
        self._tell_of_all()
        seconds = round(perf_counter() - self._started, 3)
        log.info("serving", extra={"models": len(self._repository), "seconds": seconds})

    def _tell(self, model: str, served: bool | None) -> None:
        if served is None:
            self._health.forget(model)
        else:
            self._health.set(model, served)
            self._health.set_versions(model, self._repository.statuses(model))
        if not self._repository.loading:
            self._tell_of_all()

    def _tell_of_all(self) -> None:
        for service in (PREDICTION_SERVICE, OPEN_INFERENCE_SERVICE, OVERALL):
            self._health.set(service, len(self._repository) > 0)

    async def _drain(self) -> None:
        """Say that we leave, take requests a little longer, then only finish those in flight."""
        if self._grpc is None:
            return
        self._health.drain()
        if self._admin is not None:
            self._leave(self._settings.admin_port)
            await self._admin.stop(None)
        log.info("draining", extra={"inflight": self._metrics.inflight})
        await asyncio.sleep(self._settings.drain_seconds)
        # gRPC cancels the calls that reach it between its stop and the moment their callers learn of it
        # (grpc#41785). But callers who wait for an answer ask nothing new, and they learn that we leave
        # before they get it.
        await self._calls.hold(_QUIET_SECONDS, _HOLD_SECONDS)
        self._leave(self._settings.grpc_port)
        stopping = asyncio.ensure_future(self._grpc.stop(self._settings.grace_seconds + _FLUSH_SECONDS))
        await asyncio.sleep(0)  # it has begun
        self._calls.release()
        self._prediction.close_streams()
        self._open_inference.close_streams()
        self._health.close()
        try:
            async with asyncio.timeout(self._settings.grace_seconds):
                await self._calls.idle()
        except TimeoutError:
            return  # what is still in flight is cut off
        await asyncio.wait({stopping}, timeout=_FLUSH_SECONDS)

    def _leave(self, port: int | None) -> None:
        if self._team is not None and port is not None:
            self._team.leaving(port)

    async def _shutdown(self) -> Ending:
        cut_off = self._metrics.inflight
        if self._grpc is not None:
            await self._grpc.stop(None)
        if self._admin is not None:
            await self._admin.stop(None)
        if self._http is not None:
            await asyncio.to_thread(self._http.close)
        idle = [await lane.close(_FLUSH_SECONDS) for lane in self._lanes]
        if self._tracer:
            await asyncio.to_thread(self._tracer.close, _FLUSH_SECONDS)
        self._request_log.tell_suppressed()
        self._metrics.flush()
        if self._grpc is not None:
            log.info("stopped", extra={"cut_off": cut_off})
        return Ending(cut_off, computing=not all(idle) or self._repository.busy)


async def _finishes(work: Coroutine[Any, Any, None], unless: asyncio.Event) -> bool:
    """Do `work` to its end, or drop it when the event happens; whether it came to its end."""
    task = asyncio.ensure_future(work)
    event = asyncio.ensure_future(unless.wait())
    await asyncio.wait({task, event}, return_when=asyncio.FIRST_COMPLETED)
    for unfinished in (task, event):
        unfinished.cancel()
    await asyncio.wait({task, event})
    if task.cancelled():
        return False
    task.result()
    return True
