"""The process above the workers: starts them, restarts those that die, stops them, shows their metrics.

It serves nothing itself and imports neither gRPC nor a runtime, so that little of it can fail.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import sys
from contextlib import ExitStack
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory
from time import monotonic

from prometheus_client import CollectorRegistry, Counter, Gauge, disable_created_metrics

from dropserve_server import signals
from dropserve_server.errors import StartupError
from dropserve_server.logs import LOGGER
from dropserve_server.metrics_http import MetricsServer
from dropserve_server.settings import Settings
from dropserve_server.workers.collector import WorkersCollector
from dropserve_server.workers.handle import Handle, how_it_ended
from dropserve_server.workers.port import reserved
from dropserve_server.workers.relay import Relay

OK, FAILURE = 0, 1

_STEADY_SECONDS = 60.0  # a worker that has served so long was no failed start
_LONGEST_DELAY = 60.0
_OVERTIME_SECONDS = 10.0  # beyond what a worker allows itself to end

log = logging.getLogger(LOGGER)


def supervise(settings: Settings) -> int:
    """Serve with several workers until a signal says to stop; the exit status."""
    try:
        with asyncio.Runner() as runner:
            return runner.run(Supervisor(settings).run())
    except StartupError as error:
        print(f"dropserve serve: {error}", file=sys.stderr)
        return FAILURE


def restart_delay(failures: int) -> float:
    """Seconds until a worker that has died `failures` times in a row starts again: none, 1, 2, 4, ..."""
    return 0.0 if failures <= 1 else min(_LONGEST_DELAY, 2.0 ** min(failures - 2, 10))


class Supervisor:
    """The workers, from the first one's start to the last one's end. Run it once.

    Attributes
    ----------
    registry : CollectorRegistry
        What the metrics page shows.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._workers: dict[int, Handle] = {}
        self._stopping = asyncio.Event()
        self._ready: set[int] = set()
        self._all_ready = asyncio.Event()
        self._has_served = False
        self._failure: str | None = None
        self._status = OK
        self._relay = Relay(lambda: [worker for _, worker in sorted(self._workers.items()) if worker.joined])
        self.registry = CollectorRegistry()
        disable_created_metrics()  # type: ignore[no-untyped-call]
        Gauge(
            "dropserve_workers", "Worker processes that have the port open.", registry=self.registry
        ).set_function(lambda: len(self._listening()))
        self._restarts = Counter(
            "dropserve_worker_restarts_total",
            "Workers that took a dead one's place.",
            registry=self.registry,
        )

    async def run(self) -> int:
        """Start the workers and see them to their end; the exit status.

        Raises
        ------
        StartupError
            A port can't be bound, or the workers can't start.
        """
        settings = self._settings
        with ExitStack() as held:
            folder = held.enter_context(TemporaryDirectory(prefix="dropserve-"))
            ports = {"grpc_port": held.enter_context(reserved("gRPC", settings.host, settings.grpc_port))}
            if settings.admin_port is not None:
                admin = reserved("admin", settings.admin_host, settings.admin_port)
                ports["admin_port"] = held.enter_context(admin)
            self._settings = settings.model_copy(update=ports)
            self.registry.register(WorkersCollector(Path(folder), self._pids))
            http = MetricsServer(settings.metrics_host, settings.metrics_port, self.registry, self)
            log.info(
                "supervising",
                extra={
                    "workers": settings.workers,
                    "host": settings.host,
                    "metrics_port": http.port,
                    "pid": os.getpid(),
                    "version": version("dropserve"),
                }
                | ports,
            )
            signals.heed(self._stop, self._drain)
            try:
                async with asyncio.TaskGroup() as group:
                    for number in range(1, settings.workers + 1):
                        group.create_task(self._keep(number, Path(folder)))
            finally:
                await asyncio.to_thread(http.close)
        if self._failure is not None:
            raise StartupError(self._failure)
        log.info("all stopped", extra={"status": self._status})
        return self._status

    def _drain(self) -> None:
        if not self._stopping.is_set():
            self._stop()

    def _stop(self) -> None:
        """Have every worker drain; the second time, end."""
        again = self._stopping.is_set()
        self._stopping.set()
        self._all_ready.set()
        patience = _OVERTIME_SECONDS
        if not again:
            patience += self._settings.drain_seconds + self._settings.grace_seconds
        for worker in self._workers.values():
            worker.tell("abort" if again else "drain")
            asyncio.get_running_loop().call_later(patience, worker.kill)

    async def _keep(self, number: int, folder: Path) -> None:
        """Have worker `number` run until the end, in as many processes as that takes, one at a time."""
        failures = 0
        while not self._stopping.is_set():
            started = monotonic()
            how = await self._live(number, folder)
            if self._stopping.is_set():
                break
            failures = 1 if monotonic() - started > _STEADY_SECONDS else failures + 1
            delay = restart_delay(failures)
            log.error("worker ended", extra={"worker": number} | how | {"restart_in_seconds": delay})
            try:
                await asyncio.wait_for(self._stopping.wait(), delay)
            except TimeoutError:
                self._restarts.inc()

    async def _live(self, number: int, folder: Path) -> dict[str, object]:
        """One process, from its start to its end; how it ended."""
        try:
            worker = self._workers[number] = await Handle.start(
                number, self._settings, folder, self._relay.orders
            )
        except OSError as error:
            self._note_ready(number)  # not waited for
            return {"how": "not started", "reason": str(error)}
        log.info("worker started", extra={"worker": number, "pid": worker.pid})
        status = await self._see_to_its_end(worker)
        del self._workers[number]
        WorkersCollector.forget(folder, number)
        # A service manager may send SIGTERM to all of us: it ends a worker that is still starting.
        if self._stopping.is_set() and status not in (OK, -signal.SIGTERM):
            self._status = FAILURE
        elif worker.failure is not None and not self._has_served:
            self._failure = worker.failure  # the next one would fare no better
            self._stop()
        reason = {"reason": worker.failure} if worker.failure else {}
        return {"pid": worker.pid, "how": how_it_ended(status)} | reason

    async def _see_to_its_end(self, worker: Handle) -> int:
        watching = asyncio.ensure_future(worker.watch(self._note_that_one_serves, self._relay.take))
        if self._stopping.is_set():  # since it was told to start
            worker.tell("drain")
        if await worker.loaded():
            # The first time together: clients that have waited for the port to open spread over all of them.
            self._note_ready(worker.number)
            await self._all_ready.wait()
            worker.join(self._relay.orders)
        elif worker.failure is None:
            self._note_ready(worker.number)  # not waited for
        return await watching

    def _note_ready(self, number: int) -> None:
        self._ready.add(number)
        if len(self._ready) == self._settings.workers:
            self._all_ready.set()

    def _note_that_one_serves(self) -> None:
        self._has_served = True

    def all(self) -> dict[str, bool]:
        """Whether each model, and each MODEL/VERSION, is served by any worker. Any thread may ask."""
        names = {"", *(name for worker in self._listening() for name in worker.health)}
        return {name: serving for name in names if (serving := self._serving(name)) is not None}

    def failed(self) -> dict[str, list[int]]:
        """The versions that any worker could not load, by model, ascending. Any thread may ask."""
        failed: dict[str, set[int]] = {}
        for worker in self._listening():
            for model, versions in worker.failed_versions.items():
                failed.setdefault(model, set()).update(versions)
        return {model: sorted(failed[model]) for model in sorted(failed)}

    def _serving(self, name: str) -> bool | None:
        said = [worker.health[name] for worker in self._listening() if name in worker.health]
        if not said:
            return None if name else False
        return any(said) and not self._stopping.is_set()

    def _listening(self) -> list[Handle]:
        return [worker for worker in list(self._workers.values()) if worker.listening]

    def _pids(self) -> dict[str, int]:
        return {"supervisor": os.getpid()} | {str(n): worker.pid for n, worker in list(self._workers.items())}
