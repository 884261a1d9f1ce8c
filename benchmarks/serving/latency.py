"""How long deterministic requests take: below the peak, and beside a flood of Monte Carlo requests.

Calls are spread evenly over time, at a share of the rate that 64 callers reach who never pause. The echo
server is asked likewise, at the same share of its own rate: how far its percentiles are apart is what the
machine and gRPC do.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from statistics import median

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
LONGER = 2
"""Percentiles need more calls than rates do: rounds are so many times longer."""


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
            at = partial(generate.latencies, target, seconds=LONGER * seconds)
            calls = calibrated(generate, bars, LONGER * seconds, FLOOD_CALLERS)
            rates: list[float] = []
            measured = interleave(
                {
                    "echo": partial(generate.latencies, echoed, HIGH * echo_peak, LONGER * seconds),
                    "high": partial(at, HIGH * peak),
                    "low": partial(at, LOW * peak),
                    "flooded": partial(_flooded, partial(at, LOW * peak), generate, bars, calls, rates),
                },
                rounds,
            )
    tail = None
    for case, high in (
        (f"grpc.aio echo, at {HIGH:.0%} of its peak", measured["echo"]),
        (f"{SMALL.name}, 1 row, at {HIGH:.0%} of the peak", measured["high"]),
    ):
        middle = report.add(case, "p50", _percentiles(high, 50), "ms")
        last = report.add(case, "p99", _percentiles(high, 99), "ms", against=middle)
        ratios = [p99 / p50 for p99, p50 in zip(last.rounds, middle.rounds, strict=True)]
        tail = report.add(case, "p99 / p50", ratios, "times", against=tail)
    case = f"{SMALL.name}, 1 row, at {LOW:.0%} of the peak"
    alone = report.add(case, "p99", _percentiles(measured["low"], 99), "ms")
    flooded = f"{case}, {FLOOD_CALLERS} callers of {LARGE.name}, {FLOOD_ROWS} rows, {FLOOD_PASSES} passes"
    report.add(flooded, "p99", _percentiles(measured["flooded"], 99), "ms", against=alone)
    report.add(flooded, "their requests a second", rates, "1/s")


def _flooded(
    measure_latencies: Callable[[], NDArray[np.float64]],
    generate: LoadGenerator,
    bars: Target,
    calls: int,
    rates: list[float],
) -> NDArray[np.float64]:
    """The latencies beside a flood; its own rate is added to `rates`."""
    with flood(generate, bars, FLOOD_CALLERS, calls) as parts:
        latencies = measure_latencies()
    rates.append(median(parts))
    return latencies


def _percentiles(rounds: Sequence[NDArray[np.float64]], percent: float) -> list[float]:
    """Of each round's latencies, in milliseconds."""
    return [1000 * float(np.percentile(latencies, percent)) for latencies in rounds]
