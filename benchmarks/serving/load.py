"""Load generators: calls as fast as they are answered, or at a given rate.

h2load (nghttp2; Debian's package nghttp2-client) where it is on the PATH: it costs little beside the
server. Otherwise a grpc.aio client on uvloop, which takes as much CPU as the server does and so measures
rather the two of them; ratios are then nearer to 1 than they are.
"""

from __future__ import annotations

import json
import re
import shutil
import struct
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

CONCURRENCY = 64
"""Callers, each with a connection and one call at a time."""

SPREAD_CALLERS = 61
"""Callers at a given rate: a prime, see `evenly`."""

PREDICT = "/dropserve.v1.PredictionService/Predict"
_LONGEST_SECONDS = 300
_WARM_UP_SECONDS = 0.5  # of a given rate, while callers connect


@dataclass(frozen=True, slots=True)
class Target:
    """What is called.

    Attributes
    ----------
    address : str
        ``HOST:PORT``.
    message : Path
        A file with the serialised request.
    answer_bytes : int
        The size of its answer; an answer of another size is an error.
    """

    address: str
    message: Path
    answer_bytes: int


class LoadGenerator(Protocol):
    """Makes calls, and raises RuntimeError where not every one is answered with a message of its size.

    Attributes
    ----------
    name : str
    """

    name: str

    def rate(self, target: Target, calls: int, callers: int = CONCURRENCY) -> float:
        """Make so many calls, at least one a caller; how many a second were answered."""

    def latencies(self, target: Target, calls_a_second: float, seconds: float) -> NDArray[np.float64]:
        """Make calls at that rate, spread evenly over time; what each took, in seconds [calls]."""


def load_generator() -> LoadGenerator:
    """The best load generator there is."""
    return H2Load() if shutil.which("h2load") else PythonClient()


def calibrated(generate: LoadGenerator, target: Target, seconds: float, callers: int = CONCURRENCY) -> int:
    """How many calls take about so many seconds; the server is warm then."""
    calls = callers * 4
    for _ in range(2):
        calls = max(callers, round(generate.rate(target, calls, callers) * seconds / 3))
    return max(callers, 3 * calls)


@contextmanager
def flood(generate: LoadGenerator, target: Target, callers: int, calls: int) -> Iterator[list[float]]:
    """Calls as fast as they are answered for the time of a context; afterwards the rates of their parts.

    Callers that connect call all at the same time: let `calls`, those of a part, take as long as the context.
    """
    rates: list[float] = []
    ended = threading.Event()

    def go_on() -> None:
        while not ended.is_set():
            rates.append(generate.rate(target, calls, callers))

    thread = threading.Thread(target=go_on, name="flood")
    thread.start()
    try:
        yield rates
    finally:
        ended.set()
        thread.join()


def evenly(calls_a_second: float) -> tuple[int, int, float]:
    """How callers of one rate, each as often as the others, make their calls evenly spread over time.

    Returns
    -------
    callers, spacing, rate : int, int, float
        So many, each beginning so many milliseconds after the one before, make so many calls a second, about
        as many as asked for. Then no two of them ever call at the same time: within a caller's period, the
        beginnings of all wrap around so often that is no divisor of their number, which is a prime.
    """
    spacing = next(
        spacing
        for spacing in range(1, 1000)
        if abs(max(1, round(calls_a_second * spacing / 1000)) * 1000 / spacing / calls_a_second - 1) < 0.03
    )
    wraps = max(1, round(calls_a_second * spacing / 1000))
    return SPREAD_CALLERS, spacing, wraps * 1000 / spacing


class H2Load:
    """Calls by nghttp2's h2load."""

    name = "h2load"

    def rate(self, target: Target, calls: int, callers: int = CONCURRENCY) -> float:
        """See `LoadGenerator`."""
        output = self._run(target, calls, callers)
        rate = re.search(r"finished in \S+, ([\d.]+) req/s", output)
        if rate is None:
            raise RuntimeError(f"h2load's output has changed:\n{output}")
        return float(rate[1])

    def latencies(self, target: Target, calls_a_second: float, seconds: float) -> NDArray[np.float64]:
        """See `LoadGenerator`."""
        callers, spacing, rate = evenly(calls_a_second)
        warm_up = _WARM_UP_SECONDS + callers * spacing / 1000
        calls = round(rate * (seconds + warm_up))
        with TemporaryDirectory() as folder:
            log = Path(folder) / "calls"
            # Callers that began together would go on calling together: they begin one after the other.
            spread = ["--rate", "1", "--rate-period", f"{spacing}ms", "--rps", f"{rate / callers:.6g}"]
            self._run(target, calls, callers, *spread, "--log-file", str(log))
            started, _, taken = np.loadtxt(log).T  # in microseconds
        measured: NDArray[np.float64] = taken[started > started.min() + warm_up * 1e6] / 1e6
        return measured

    def _run(self, target: Target, calls: int, callers: int, *options: str) -> str:
        message = target.message.read_bytes()
        body = target.message.with_suffix(".grpc")
        # Not compressed, and the length: the gRPC over HTTP/2 protocol's Length-Prefixed-Message.
        body.write_bytes(struct.pack(">BI", 0, len(message)) + message)
        command = ["h2load", "-n", str(calls), "-c", str(callers), "-m", "1", "-d", str(body), *options]
        command += ["-H", "content-type: application/grpc", "-H", "te: trailers"]
        output = _run([*command, f"http://{target.address}{PREDICT}"])
        succeeded = re.search(r"(\d+) succeeded", output)
        data = re.search(r"\((\d+)\) data", output)
        if succeeded is None or data is None:
            raise RuntimeError(f"h2load's output has changed:\n{output}")
        # A call that failed is a success of HTTP, whose status is in the trailers, and carries no message.
        answered = int(data[1]) / (5 + target.answer_bytes)
        if int(succeeded[1]) != calls or not 0.99 * calls < answered < 1.01 * calls:
            raise RuntimeError(f"{calls} calls were made, {answered:.1f} answered:\n{output}")
        return output


class PythonClient:
    """Calls by a grpc.aio client in a process of its own; see `python_client`."""

    name = "a grpc.aio client (no h2load on the PATH: ratios are flattered)"

    def rate(self, target: Target, calls: int, callers: int = CONCURRENCY) -> float:
        """See `LoadGenerator`."""
        seconds = self._run(target, calls, callers)
        return calls / seconds["all"][0]

    def latencies(self, target: Target, calls_a_second: float, seconds: float) -> NDArray[np.float64]:
        """See `LoadGenerator`."""
        skipped, calls = (round(calls_a_second * part) for part in (_WARM_UP_SECONDS, seconds))
        measured = self._run(target, skipped + calls, CONCURRENCY, f"{CONCURRENCY / calls_a_second}")
        return np.array(measured["each"][skipped:])

    def _run(
        self, target: Target, calls: int, callers: int, seconds_between: str = "0"
    ) -> dict[str, list[float]]:
        command = [sys.executable, "-m", "benchmarks.serving.python_client", target.address]
        command += [str(target.message), str(target.answer_bytes), str(calls), str(callers), seconds_between]
        measured: dict[str, list[float]] = json.loads(_run(command))
        return measured


def _run(command: list[str]) -> str:
    process = subprocess.run(command, capture_output=True, text=True, timeout=_LONGEST_SECONDS, check=False)
    if process.returncode:
        raise RuntimeError(f"{command[0]} failed:\n{process.stdout}{process.stderr}")
    return process.stdout
