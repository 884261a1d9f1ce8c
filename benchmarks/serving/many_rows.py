"""Rows a second of 64-row requests, beside a bare ONNX Runtime loop of 64-row calls in one process.

The loop has all cores to itself, and nothing to read or to write. The requests carry their rows through the
network's stack, gRPC and back; what that alone leaves of the loop's rate shows a raw grpc.aio server, which
takes the same messages, answers as many bytes, and neither parses nor computes.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import onnxruntime

from benchmarks.networks import LARGE, publish
from benchmarks.report import Report, interleave
from benchmarks.serving.load import LoadGenerator, Target, calibrated
from benchmarks.serving.processes import dropserve_server, echo_server
from benchmarks.serving.targets import predict_target

ROWS = 64
_CALLERS = 16  # more only wait for each other, and for the cores that make the load


def measure(report: Report, folder: Path, generate: LoadGenerator, seconds: float, rounds: int) -> None:
    """Add the cases to the report."""
    model = publish(LARGE, folder / "repository") / "model.onnx"
    with dropserve_server(folder / "repository", folder / "log") as server:
        target = predict_target(server.address, LARGE, folder, passes=None, rows=ROWS)
        with echo_server(target.answer_bytes) as echo:
            cases: Mapping[str, Callable[[], float]] = {
                "bare": partial(_bare, model, seconds),
                "echo": _rows_a_second(generate, replace(target, address=echo.address), seconds),
                "served": _rows_a_second(generate, target, seconds),
            }
            rates = interleave(cases, rounds)
    add = partial(report.add, measure="rows a second", unit="1/s")
    case = f"{LARGE.name}, {ROWS} rows"
    bare = add(f"{case}: bare ONNX Runtime loop", rounds=rates["bare"])
    echoed = add(f"{case}: grpc.aio echo", rounds=rates["echo"], against=bare)
    add(f"{case}: dropserve", rounds=rates["served"], against=bare)
    add(f"{case}: dropserve", rounds=rates["served"], against=echoed)


def _rows_a_second(generate: LoadGenerator, target: Target, seconds: float) -> Callable[[], float]:
    calls = calibrated(generate, target, seconds, _CALLERS)
    return lambda: ROWS * generate.rate(target, calls, _CALLERS)


def _bare(model: Path, seconds: float) -> float:
    command = [sys.executable, "-m", "benchmarks.serving.many_rows", str(model), str(seconds)]
    output = subprocess.run(command, capture_output=True, check=True, timeout=60 + 2 * seconds)
    return float(json.loads(output.stdout))


def _loop(model: str, seconds: float) -> float:
    """Rows a second, with ONNX Runtime's own settings."""
    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    rows = np.random.default_rng(0).normal(size=(ROWS, LARGE.sizes[0])).astype(np.float32)
    for _ in range(50):
        session.run(None, {name: rows})
    calls, started = 0, time.perf_counter()
    while (now := time.perf_counter()) < started + seconds:
        session.run(None, {name: rows})
        calls += 1
    return calls * ROWS / (now - started)


if __name__ == "__main__":
    print(json.dumps(_loop(sys.argv[1], float(sys.argv[2]))))
