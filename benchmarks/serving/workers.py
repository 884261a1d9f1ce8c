"""What a second worker brings, beside what a second process brings a raw grpc.aio echo server.

A Python gRPC process already uses more than one core, so two of them are not twice as fast as one, least of
all on a machine of few cores that makes the load as well. What counts is that dropserve gains as much from a
second process as a server does that computes nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path

from benchmarks.networks import SMALL, publish
from benchmarks.report import Report, interleave
from benchmarks.serving.load import LoadGenerator, Target, calibrated
from benchmarks.serving.processes import dropserve_server, echo_server
from benchmarks.serving.targets import predict_target


def measure(report: Report, folder: Path, generate: LoadGenerator, seconds: float, rounds: int) -> None:
    """Add the cases to the report."""
    publish(SMALL, folder / "repository")
    with ExitStack() as stack:
        cases = {}
        for workers in (1, 2):
            log = folder / f"log-{workers}"
            server = stack.enter_context(
                dropserve_server(folder / "repository", log, "--workers", str(workers))
            )
            target = predict_target(server.address, SMALL, folder, passes=None)
            port = 0
            for _ in range(workers):
                echo = stack.enter_context(echo_server(target.answer_bytes, port))
                port = echo.port
            echoed = Target(echo.address, target.message, target.answer_bytes)
            cases[f"dropserve, {workers}"] = _case(target, generate, seconds)
            cases[f"echo, {workers}"] = _case(echoed, generate, seconds)
        rates = interleave(cases, rounds)
    named = f"{SMALL.name}, 1 row, "
    one, two = rates["dropserve, 1"], rates["dropserve, 2"]
    add = partial(report.add, measure="requests a second", unit="1/s")
    alone = add(f"{named}dropserve with one worker", rounds=one)
    add(f"{named}dropserve with two workers", rounds=two, against=alone)
    gain = partial(report.add, measure="two processes against one", unit="times")
    echo_gain = gain(f"{named}grpc.aio echo", rounds=_quotients(rates["echo, 2"], rates["echo, 1"]))
    gain(f"{named}dropserve", rounds=_quotients(two, one), against=echo_gain)


def _case(target: Target, generate: LoadGenerator, seconds: float) -> partial[float]:
    return partial(generate.rate, target, calibrated(generate, target, seconds))


def _quotients(above: Sequence[float], below: Sequence[float]) -> list[float]:
    return [one / other for one, other in zip(above, below, strict=True)]
