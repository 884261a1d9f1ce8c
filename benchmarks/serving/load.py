"""Load generators: so many calls, 64 at a time, as fast as they are answered.

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
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

CONCURRENCY = 64
"""Callers, each with a connection and one call at a time."""

PREDICT = "/dropserve.v1.PredictionService/Predict"
_LONGEST_SECONDS = 300


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


LoadGenerator = Callable[[Target, int], float]
"""Makes so many calls, at least CONCURRENCY, and says how many a second were answered."""


def load_generator() -> tuple[str, LoadGenerator]:
    """The best load generator there is, and its name."""
    if shutil.which("h2load"):
        return "h2load", h2load
    return "a grpc.aio client (no h2load on the PATH: ratios are flattered)", python_client


def h2load(target: Target, calls: int) -> float:
    """Calls by nghttp2's h2load.

    Raises
    ------
    RuntimeError
        Where not every call was answered with a message of the expected size.
    """
    message = target.message.read_bytes()
    body = target.message.with_suffix(".grpc")
    # Not compressed, and the length: the gRPC over HTTP/2 protocol's Length-Prefixed-Message.
    body.write_bytes(struct.pack(">BI", 0, len(message)) + message)
    command = ["h2load", "-n", str(calls), "-c", str(CONCURRENCY), "-m", "1", "-d", str(body)]
    command += ["-H", "content-type: application/grpc", "-H", "te: trailers"]
    output = _run([*command, f"http://{target.address}{PREDICT}"])
    rate = re.search(r"finished in \S+, ([\d.]+) req/s", output)
    succeeded = re.search(r"(\d+) succeeded", output)
    data = re.search(r"\((\d+)\) data", output)
    if rate is None or succeeded is None or data is None:
        raise RuntimeError(f"h2load's output has changed:\n{output}")
    # A call that failed is a success of HTTP, whose status is in the trailers, and carries no message.
    answered = int(data[1]) / (5 + target.answer_bytes)
    if int(succeeded[1]) != calls or not 0.99 * calls < answered < 1.01 * calls:
        raise RuntimeError(f"{calls} calls were made, {answered:.1f} answered:\n{output}")
    return float(rate[1])


def python_client(target: Target, calls: int) -> float:
    """Calls by a grpc.aio client in a process of its own."""
    command = [sys.executable, "-m", "benchmarks.serving.python_client", target.address]
    command += [str(target.message), str(target.answer_bytes), str(calls)]
    return float(json.loads(_run(command))["calls_a_second"])


def _run(command: list[str]) -> str:
    process = subprocess.run(command, capture_output=True, text=True, timeout=_LONGEST_SECONDS, check=False)
    if process.returncode:
        raise RuntimeError(f"{command[0]} failed:\n{process.stdout}{process.stderr}")
    return process.stdout
