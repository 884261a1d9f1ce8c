"""1-row requests a second and CPU time a request, beside a raw grpc.aio echo server.

The echo server answers messages of the same sizes on the same kind of event loop (uvloop), and neither
parses nor computes. Both servers run side by side and are loaded in turn, by the same load generator, with
64 callers.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from benchmarks.networks import LARGE, SMALL, Network, publish
from benchmarks.report import Report, interleave
from benchmarks.serving.load import LoadGenerator, Target, calibrated
from benchmarks.serving.processes import ServerProcess, dropserve_server, echo_server
from benchmarks.serving.targets import predict_target

PASSES = 100
ECHO, DETERMINISTIC, MONTE_CARLO = "grpc.aio echo", "dropserve", f"dropserve, {PASSES} passes"


@dataclass(frozen=True, slots=True)
class Measured:
    """What one round of one case gave."""

    calls_a_second: float
    cpu_milliseconds_a_call: float


def measure(report: Report, folder: Path, generate: LoadGenerator, seconds: float, rounds: int) -> None:
    """Add the cases to the report."""
    for network in (SMALL, LARGE):
        publish(network, folder / "repository")
    with dropserve_server(folder / "repository", folder / "log") as server:
        for network in (SMALL, LARGE):
            _measure(report, network, server, folder, generate, seconds, rounds)


def _measure(
    report: Report,
    network: Network,
    server: ServerProcess,
    folder: Path,
    generate: LoadGenerator,
    seconds: float,
    rounds: int,
) -> None:
    point = predict_target(server.address, network, folder, passes=None)
    bars = predict_target(server.address, network, folder, passes=PASSES)
    with echo_server(point.answer_bytes) as echo:
        echoed = Target(echo.address, point.message, point.answer_bytes)
        measured = interleave(
            {
                ECHO: _case(echo, echoed, generate, seconds),
                DETERMINISTIC: _case(server, point, generate, seconds),
                MONTE_CARLO: _case(server, bars, generate, seconds),
            },
            rounds,
        )
    rates = {case: [round_.calls_a_second for round_ in done] for case, done in measured.items()}
    costs = {case: [round_.cpu_milliseconds_a_call for round_ in done] for case, done in measured.items()}

    rate = partial(report.add, measure="requests a second", unit="1/s")
    echo_rate = rate(_named(network, ECHO), rounds=rates[ECHO])
    point_rate = rate(_named(network, DETERMINISTIC), rounds=rates[DETERMINISTIC], against=echo_rate)
    rate(_named(network, MONTE_CARLO), rounds=rates[MONTE_CARLO], against=point_rate)
    cost = partial(report.add, measure="CPU time a request", unit="ms")
    echo_cost = cost(_named(network, ECHO), rounds=costs[ECHO])
    point_cost = cost(_named(network, DETERMINISTIC), rounds=costs[DETERMINISTIC], against=echo_cost)
    cost(_named(network, MONTE_CARLO), rounds=costs[MONTE_CARLO], against=point_cost)


def _named(network: Network, case: str) -> str:
    return f"{network.name}, 1 row: {case}"


def _case(
    server: ServerProcess, target: Target, generate: LoadGenerator, seconds: float
) -> Callable[[], Measured]:
    calls = calibrated(generate, target, seconds)

    def measure() -> Measured:
        before = server.cpu_seconds()
        rate = generate.rate(target, calls)
        return Measured(rate, 1000 * (server.cpu_seconds() - before) / calls)

    return measure
