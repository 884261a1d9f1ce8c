"""The real ``dropserve serve``: started on free ports, asked whether it is ready, stopped by its pid."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

TIMEOUT = 60.0  # seconds for anything a server is waited for; generous, for busy machines


class ServerProcess:
    """A server process, its ports and its log.

    Attributes
    ----------
    grpc_port, metrics_port : int
    log : list of dict
        The events it has logged so far, oldest first.
    """

    def __init__(self, command: list[str], environment: Mapping[str, str]) -> None:
        self.log: list[dict[str, Any]] = []
        self.other_lines: list[str] = []
        self._news = threading.Condition()
        self._ended = False
        self.process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=dict(environment))
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    @property
    def pid(self) -> int:
        return self.process.pid

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.grpc_port}"

    def wait_until_listening(self) -> None:
        event = self.wait_for("supervising" if "--workers" in self.process.args else "listening")  # type: ignore[operator]  # a list
        self.grpc_port = int(event["grpc_port"])
        self.metrics_port = int(event["metrics_port"])

    def wait_until_serving(self, channel: grpc.Channel | None = None) -> None:
        """Ask grpc.health until it says SERVING."""
        with grpc.insecure_channel(self.address) if channel is None else channel as open_channel:
            watch = health_pb2_grpc.HealthStub(open_channel).Watch(  # type: ignore[attr-defined]  # not in its stubs
                health_pb2.HealthCheckRequest(), timeout=TIMEOUT, wait_for_ready=True
            )
            for answer in watch:
                if answer.status == health_pb2.HealthCheckResponse.SERVING:
                    watch.cancel()
                    return

    def wait_for(self, event: str, **fields: object) -> dict[str, Any]:
        """The first logged event of that name with those fields; waits for it."""

        def found() -> dict[str, Any] | None:
            for line in self.log:
                if line["event"] == event and all(line.get(name) == value for name, value in fields.items()):
                    return line
            return None

        with self._news:
            self._news.wait_for(lambda: self._ended or found(), TIMEOUT)
            line = found()
        if line is None:
            raise AssertionError(f"no event {event!r} {fields}; log: {self.log}, {self.other_lines}")
        return line

    def workers(self) -> dict[int, int]:
        """The pid of each worker that was started last, by its number."""
        return {line["worker"]: line["pid"] for line in self.log if line["event"] == "worker started"}

    def signal(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    def wait(self) -> int:
        """Wait for the end; the exit status."""
        status = self.process.wait(TIMEOUT)
        self._reader.join(TIMEOUT)
        return status

    def stop(self) -> int:
        self.signal(signal.SIGTERM)
        return self.wait()

    def healthz(self, query: str = "") -> tuple[int, dict[str, Any]]:
        """What /healthz answers: the status, and the document."""
        url = f"http://127.0.0.1:{self.metrics_port}/healthz{query}"
        try:
            with urllib.request.urlopen(url, timeout=TIMEOUT) as page:
                return page.status, json.load(page)
        except urllib.error.HTTPError as error:
            with error:
                return error.code, json.load(error)

    def healthz_until(self, status: int, query: str = "") -> None:
        """Ask /healthz until it answers with that status."""
        deadline = time.monotonic() + TIMEOUT
        while (answer := self.healthz(query))[0] != status:
            assert time.monotonic() < deadline, answer
            time.sleep(0.02)

    def scrape(self) -> dict[str, float]:
        """/metrics, as {'name{label="value",...}': number} with the labels sorted."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self.metrics_port}/metrics", timeout=TIMEOUT) as page:
            lines = page.read().decode().splitlines()
        samples = {}
        for line in lines:
            if not line.startswith("#"):
                series, _, value = line.rpartition(" ")
                name, _, labels = series.partition("{")
                ordered = ",".join(sorted(re.findall(r'\w+="[^"]*"', labels)))
                samples[f"{name}{{{ordered}}}" if ordered else name] = float(value)
        return samples

    def scrape_until(self, condition: Callable[[dict[str, float]], bool]) -> dict[str, float]:
        """The first scrape that fulfils the condition; waits for it."""
        deadline = time.monotonic() + TIMEOUT
        while not condition(found := self.scrape()):
            assert time.monotonic() < deadline, found
            time.sleep(0.02)
        return found

    def resident_bytes(self) -> int:
        with open(f"/proc/{self.pid}/statm", encoding="ascii") as file:
            return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")

    def loaded_libraries(self) -> str:
        with open(f"/proc/{self.pid}/maps", encoding="utf-8") as file:
            return file.read()

    def _read(self) -> None:
        assert self.process.stderr is not None
        with self.process.stderr as lines:
            for line in lines:
                with self._news:
                    if line.startswith("{"):
                        self.log.append(json.loads(line))
                    else:
                        self.other_lines.append(line)
                    self._news.notify_all()
        with self._news:
            self._ended = True
            self._news.notify_all()


def environment(**variables: str) -> dict[str, str]:
    """This process's environment without settings of the server, plus `variables`."""
    return {k: v for k, v in os.environ.items() if not k.startswith("DROPSERVE_")} | variables


def serve_to_the_end(*options: str) -> subprocess.CompletedProcess[str]:
    """Run ``dropserve serve`` to its end; for those that can't start."""
    command = [str(Path(sys.executable).parent / "dropserve"), "serve", "--grpc-port", "0"]
    return subprocess.run(
        [*command, "--metrics-port", "0", *options],
        capture_output=True,
        text=True,
        timeout=TIMEOUT,
        env=environment(),
        check=False,
    )


@contextmanager
def server_process(
    repository: Path,
    *options: str,
    ready: bool = True,
    listening: bool = True,
    variables: Mapping[str, str] | None = None,
) -> Iterator[ServerProcess]:
    """Run ``dropserve serve`` on free loopback ports for the time of the context.

    Parameters
    ----------
    options : str
        Further options of the command line.
    ready : bool
        Whether to wait until it is serving, not only listening.
    listening : bool
        Whether to wait for that, too; without it there are no ports yet.
    variables : mapping, optional
        Further environment variables.
    """
    command = [str(Path(sys.executable).parent / "dropserve"), "serve", "--repository", str(repository)]
    command += ["--host", "127.0.0.1", "--grpc-port", "0", "--metrics-port", "0", "--log-format", "json"]
    command += ["--drain-seconds", "0", *options]
    server = ServerProcess(command, environment(**(variables or {})))
    try:
        if listening:
            server.wait_until_listening()
        if ready:
            server.wait_until_serving()
        yield server
    finally:
        if server.process.poll() is None:
            server.signal(signal.SIGTERM)
            try:
                server.process.wait(TIMEOUT)
            except subprocess.TimeoutExpired:
                server.process.kill()
        server.wait()
