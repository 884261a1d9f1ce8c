"""What a second worker brings, beside what a second process brings a raw grpc.aio echo server; and the start.

A Python gRPC process already uses more than one core, so two of them are not twice as fast as one, least of
all on a machine of few cores that makes the load as well. What counts is that dropserve gains as much from a
second process as a server does that computes nothing.

``python -m benchmarks.serving.workers`` runs these cases alone.
"""

from __future__ import annotations

import shutil
import sys
import time
from collections.abc import Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

from benchmarks.networks import SMALL, publish
from benchmarks.report import Report, interleave, option_parser
from benchmarks.serving.load import CONCURRENCY, LoadGenerator, Target, load_generator
from benchmarks.serving.processes import dropserve_server, echo_server
from benchmarks.serving.targets import predict_target

MODELS = 10
_STARTS = 5


def measure(report: Report, generate: LoadGenerator, seconds: float, rounds: int) -> None:
    """Add the cases to the report."""
    with TemporaryDirectory() as temporary:
        folder = Path(temporary)
        _measure_speed_up(report, folder, generate, seconds, rounds)
        _measure_start(report, folder, min(rounds, _STARTS))


def _measure_speed_up(
    report: Report, folder: Path, generate: LoadGenerator, seconds: float, rounds: int
) -> None:
    publish(SMALL, folder / "speed")
    with ExitStack() as stack:
        cases = {}
        for workers in (1, 2):
            log = folder / f"log-{workers}"
            server = stack.enter_context(dropserve_server(folder / "speed", log, "--workers", str(workers)))
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
    """A case that takes about so many seconds, warmed up."""
    calls = CONCURRENCY * 4
    for _ in range(2):
        calls = max(CONCURRENCY, round(generate(target, calls) * seconds / 2))
    return partial(generate, target, 2 * calls)


def _quotients(above: Sequence[float], below: Sequence[float]) -> list[float]:
    return [one / other for one, other in zip(above, below, strict=True)]


def _measure_start(report: Report, folder: Path, rounds: int) -> None:
    version = publish(SMALL, folder / "one")
    for number in range(MODELS):
        shutil.copytree(version.parent, folder / "start" / f"model-{number}")
    named = {f"{MODELS} models, {n} worker{'s' * (n > 1)}": n for n in (1, 2)}
    cases = {name: partial(_seconds_to_serving, folder, workers) for name, workers in named.items()}
    for name, seconds in interleave(cases, rounds).items():
        report.add(name, "from start to SERVING", seconds, "s")


def _seconds_to_serving(folder: Path, workers: int) -> float:
    started = time.perf_counter()
    with dropserve_server(folder / "start", folder / "log", "--workers", str(workers), warm_up=False):
        return time.perf_counter() - started


def main(argv: Sequence[str] | None = None) -> int:
    """Measure and report."""
    options = option_parser("serving.workers", __doc__).parse_args(argv)
    report = Report("serving")
    _, generate = load_generator()
    measure(report, generate, *((1.5, 3) if options.quick else (5.0, 7)))
    report.finish(options.json)
    return 0


if __name__ == "__main__":
    sys.exit(main())
