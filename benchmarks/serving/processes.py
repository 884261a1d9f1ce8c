"""Server processes: started on free loopback ports, measured, and always stopped."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from dropserve_client import Client

_START_SECONDS = 60.0
_STOP_SECONDS = 20.0
_POLL_SECONDS = 0.005
_TICKS_A_SECOND = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True, slots=True)
class ServerProcess:
    """A running server."""

    pid: int
    port: int

    @property
    def address(self) -> str:
        """Where its gRPC port is."""
        return f"127.0.0.1:{self.port}"

    def cpu_seconds(self) -> float:
        """CPU time that it has used so far: all its threads and child processes, user and system."""
        return sum(_cpu_ticks(pid) for pid in _family(self.pid)) / _TICKS_A_SECOND

    def resident_bytes(self) -> int:
        """Memory that it holds: the resident sets of all its processes."""
        pages = (Path(f"/proc/{pid}/statm").read_text().split()[1] for pid in _family(self.pid))
        return sum(map(int, pages)) * os.sysconf("SC_PAGE_SIZE")


@contextmanager
def echo_server(answer_bytes: int, port: int = 0) -> Iterator[ServerProcess]:
    """The raw grpc.aio echo server; its answers have this size. Several may share a port."""
    command = [sys.executable, "-m", "benchmarks.serving.echo"]
    command += ["--answer-bytes", str(answer_bytes), "--port", str(port)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process, _stopping(process):
        assert process.stdout is not None
        yield ServerProcess(process.pid, int(process.stdout.readline()))


@contextmanager
def dropserve_server(
    repository: Path, log: Path, *options: str, warm_up: bool = True
) -> Iterator[ServerProcess]:
    """`dropserve serve` on the CPU with its default settings and `options`, its log in a file."""
    port = _free_port()
    command = [str(Path(sys.executable).with_name("dropserve")), "serve", "--repository", str(repository)]
    command += ["--host", "127.0.0.1", "--grpc-port", str(port), "--metrics-port", "0"]
    command += ["--device", "cpu", "--drain-seconds", "0", "--log-format", "json", *options]
    command += ["--warm-up"] if warm_up else []
    with log.open("wb") as stderr, subprocess.Popen(command, stderr=stderr) as process, _stopping(process):
        server = ServerProcess(process.pid, port)
        _wait_until_ready(server, process, log)
        yield server


def _wait_until_ready(server: ServerProcess, process: subprocess.Popen[bytes], log: Path) -> None:
    give_up = time.monotonic() + _START_SECONDS
    with Client(server.address) as client:
        # A channel that finds nobody waits a second before it tries again: so first of all a bare socket.
        while not _is_open(server.port) or not client.is_ready(timeout=1):
            if time.monotonic() > give_up or process.poll() is not None:
                raise RuntimeError(f"the server did not start:\n{log.read_text()}")
            time.sleep(_POLL_SECONDS)


def _is_open(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


@contextmanager
def _stopping(process: subprocess.Popen[str] | subprocess.Popen[bytes]) -> Iterator[None]:
    try:
        yield
    finally:
        process.terminate()
        try:
            process.wait(_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()


def _free_port() -> int:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return int(taken.getsockname()[1])


def _family(pid: int) -> Sequence[int]:
    """A process and its descendants."""
    family = [pid]
    for task in Path(f"/proc/{pid}/task").iterdir():
        with suppress(FileNotFoundError, ProcessLookupError):  # the thread has ended since
            for child in (task / "children").read_text().split():
                family += _family(int(child))
    return family


def _cpu_ticks(pid: int) -> int:
    # The command's name, in brackets, may hold spaces; utime and stime are fields 14 and 15 (proc(5)).
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return int(fields[11]) + int(fields[12])
