"""How long deterministic requests take: below the peak, and beside a flood of Monte Carlo requests.

Calls are spread evenly over time, at a share of the rate that 64 callers reach who never pause. The echo
server is asked likewise, at the same share of its own rate: how far its percentiles are apart is what the
machine and gRPC do.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from benchmarks.networks import LARGE, SMALL, publish
from benchmarks.report import Report, interleave
from benchmarks.serving.load import LoadGenerator, Target, calibrated, flood
from benchmarks.serving.processes import dropserve_server, echo_server
from benchmarks.serving.targets import predict_target

HIGH, LOW = 0.7, 0.2
"""Shares of the peak: beside nothing else, and beside a flood (both with and without it)."""
FLOOD_CALLERS, FLOOD_ROWS, FLOOD_PASSES = 8, 64, 100


def measure(report: Report, folder: Path, generate: LoadGenerator, seconds: float, rounds: int) -> None:
    """Add the cases to the report."""
    for network in (SMALL, LARGE):
        publish(network, folder / "repository")
    with dropserve_server(folder / "repository", folder / "log") as server:
        target = predict_target(server.address, SMALL, folder, passes=None)
        bars = predict_target(server.address, LARGE, folder, FLOOD_PASSES, FLOOD_ROWS)
        with echo_server(target.answer_bytes) as echo:
            echoed = replace(target, address=echo.address)
            peak, echo_peak = (
                generate.rate(asked, calibrated(generate, asked, seconds)) for asked in (target, echoed)
            )
            at = partial(generate.latencies, target, seconds=seconds)
            measured = interleave(
                {
                    "echo": partial(generate.latencies, echoed, HIGH * echo_peak, seconds),
                    "high": partial(at, HIGH * peak),
                    "low": partial(at, LOW * peak),
                    "flooded": partial(_flooded, generate, target, bars, LOW * peak, seconds),
                },
                rounds,
            )
    for case, high in (
        (f"grpc.aio echo, at {HIGH:.0%} of its peak", measured["echo"]),
        (f"{SMALL.name}, 1 row, at {HIGH:.0%} of the peak", measured["high"]),
    ):
        middle = report.add(case, "p50", _percentiles(high, 50), "ms")
        report.add(case, "p99", _percentiles(high, 99), "ms", against=middle)
    case = f"{SMALL.name}, 1 row, at {LOW:.0%} of the peak"
    alone = report.add(case, "p99", _percentiles(measured["low"], 99), "ms")
    flooded = f"{case}, {FLOOD_CALLERS} callers of {LARGE.name}, {FLOOD_ROWS} rows, {FLOOD_PASSES} passes"
    report.add(flooded, "p99", _percentiles(measured["flooded"], 99), "ms", against=alone)


def _flooded(
    generate: LoadGenerator, target: Target, bars: Target, calls_a_second: float, seconds: float
) -> NDArray[np.float64]:
    with flood(generate, bars, FLOOD_CALLERS) as rates:
        latencies = generate.latencies(target, calls_a_second, seconds)
    if not rates:
        raise RuntimeError("the flood made no call")
    return latencies


def _percentiles(rounds: Sequence[NDArray[np.float64]], percent: float) -> list[float]:
    """Of each round's latencies, in milliseconds."""
    return [1000 * float(np.percentile(latencies, percent)) for latencies in rounds]
