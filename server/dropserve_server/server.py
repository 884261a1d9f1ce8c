"""The life of a server: startup, main loop, drain, shutdown."""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import signal
from collections.abc import Coroutine
from dataclasses import dataclass
from functools import partial
from importlib.metadata import version
from time import perf_counter
from typing import Any

from dropserve_models import load
from dropserve_server.grpc import tracing
from dropserve_server.grpc.calls import Calls
from dropserve_server.grpc.health import OVERALL, HealthServicer
from dropserve_server.grpc.listener import PREDICTION_SERVICE, listen
from dropserve_server.grpc.prediction import PredictionServicer
from dropserve_server.grpc.protection import Protection
from dropserve_server.grpc.request_log import RequestLog
from dropserve_server.lane import Lane
from dropserve_server.logs import LOGGER
from dropserve_server.metrics import DETERMINISTIC, MONTE_CARLO, Metrics
from dropserve_server.metrics_http import MetricsServer
from dropserve_server.predictor import Limits, Predictor
from dropserve_server.repository import Repository
from dropserve_server.settings import Settings

_LOADING_THREADS = 4
_REFUSING_SECONDS = 0.2
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
        Whether threads are still at work on requests that nobody waits for any more.
    """

    cut_off: int
    computing: bool


class Server:
    """A server, from its start to its end. Make it and run it in one event loop, once.

    Raises
    ------
    StartupError
        A port can't be bound, or the TLS certificate can't be used.
    SettingsError
        The token file is wrong.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._started = perf_counter()
        self._stopping = asyncio.Event()  # the first signal: drain, then stop
        self._aborting = asyncio.Event()  # the second: stop now

        self._metrics = Metrics()
        self._repository = Repository(
            settings.repository,
            partial(
                load, device=settings.device, threads=settings.threads, memory_bytes=settings.max_memory_bytes
            ),
            self._metrics,
            versions=settings.versions,
            warm_up=settings.warm_up,
        )
        self._lanes = (
            Lane(DETERMINISTIC, settings.deterministic_workers, settings.queue_rows),
            Lane(MONTE_CARLO, settings.monte_carlo_workers, settings.queue_rows),
        )
        limits = Limits(
            settings.max_rows, settings.max_passes, settings.max_message_bytes - _ANSWER_OVERHEAD_BYTES
        )
        self._tracer = tracing.start(os.environ)
        self._request_log = RequestLog(settings.log_requests, settings.log_failures_per_second)
        self._calls = Calls(self._metrics, self._request_log, self._tracer)
        self._health = HealthServicer()
        self._prediction = PredictionServicer(
            self._repository,
            Predictor(limits, *self._lanes),
            self._calls,
            default_passes=settings.default_passes,
            stream_concurrency=settings.stream_concurrency,
        )
        self._protection = Protection(settings, self._metrics, self._request_log)
        interceptors = [self._tracer.interceptor] if self._tracer else []
        self._grpc, self._grpc_port = listen(
            settings, self._protection, self._prediction, self._health, interceptors
        )
        self._http = MetricsServer(
            settings.metrics_host, settings.metrics_port, self._metrics.registry, self._health.serving
        )

    async def run(self) -> Ending:
        """Serve until a signal says to stop.

        Raises
        ------
        DeviceError
            The device asked for is not there.
        ArtifactError
            The repository can't be listed.
        """
        self._heed_signals()
        following = asyncio.ensure_future(self._protection.keep_up_to_date())
        try:
            await self._startup()
            if await _finishes(self._load(), unless=self._stopping):
                await self._stopping.wait()
            await _finishes(self._drain(), unless=self._aborting)
        finally:
            following.cancel()
            ending = await self._shutdown()
        return ending

    def _heed_signals(self) -> None:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stop)

    def _stop(self) -> None:
        (self._aborting if self._stopping.is_set() else self._stopping).set()

    async def _startup(self) -> None:
        await self._grpc.start()
        log.info(
            "listening",
            extra={
                "host": self._settings.host,
                "grpc_port": self._grpc_port,
                "metrics_port": self._http.port,
                "pid": os.getpid(),
                "version": version("dropserve"),
            },
        )

    async def _load(self) -> None:
        await self._repository.load(_LOADING_THREADS, self._health.set)
        # What lives from now on until the end need not be looked through at every garbage collection.
        gc.collect()
        gc.freeze()
        if not self._repository:
            log.error(
                "no model is served",
                extra={"repository": str(self._settings.repository), "expected": "MODEL/VERSION/model.onnx"},
            )
            return
        self._health.set(PREDICTION_SERVICE, True)
        self._health.set(OVERALL, True)
        seconds = round(perf_counter() - self._started, 3)
        log.info("serving", extra={"models": len(self._repository), "seconds": seconds})

    async def _drain(self) -> None:
        """Say that we leave, take requests a little longer, then only finish those in flight."""
        self._health.drain()
        log.info("draining", extra={"inflight": self._metrics.inflight})
        await asyncio.sleep(self._settings.drain_seconds)
        # Stopping cancels the calls that gRPC holds and has not handed to us yet, and CANCELLED is not to be
        # retried. So what comes now is first told UNAVAILABLE, until hardly any such call is left.
        self._prediction.refuse()
        await asyncio.sleep(_REFUSING_SECONDS)
        refusing = asyncio.ensure_future(self._grpc.stop(self._settings.grace_seconds + _FLUSH_SECONDS))
        self._health.close()
        try:
            async with asyncio.timeout(self._settings.grace_seconds):
                await self._calls.idle()
        except TimeoutError:
            return  # what is still in flight is cut off
        await asyncio.wait({refusing}, timeout=_FLUSH_SECONDS)

    async def _shutdown(self) -> Ending:
        cut_off = self._metrics.inflight
        await self._grpc.stop(None)
        await asyncio.to_thread(self._http.close)
        idle = [await lane.close(_FLUSH_SECONDS) for lane in self._lanes]
        if self._tracer:
            await asyncio.to_thread(self._tracer.close, _FLUSH_SECONDS)
        self._request_log.tell_suppressed()
        log.info("stopped", extra={"cut_off": cut_off})
        return Ending(cut_off, computing=not all(idle))


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
