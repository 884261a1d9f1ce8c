"""Ten times the capacity: what is still answered, how late, and how soon the others are refused.

``python -m benchmarks.serving.overload`` asks a server for predictions of 64 rows, deterministically and with
Monte Carlo passes: first by callers that keep it busy, each waiting for its answer, which is the peak; then
ten times as many a second, evenly spread, whatever becomes of them. None is tried again, as the SDK would try
UNAVAILABLE and CANCELLED again. Last, ten times as many callers as the server's queue holds, who wait for
their answers and, refused, as long as RetryInfo asks before they ask again. Answers count that come while the
queue is full; the cases alternate.

In every case the callers have one core and the server the others. Else the callers' own work, ten times as
much as at the peak, would take from the server what none on a machine of its own loses. The callers announce
their requests in the calls' metadata as the SDK does, so that those refused are refused unread; in the case
`not announced` each message is taken in first. What that costs anybody is measured too: at `peak beside an
echo` the nine of ten requests that are over the capacity go to a raw echo server on the server's cores, which
reads nothing and answers nothing.

Where requests are answered nearly as fast as they can be taken in, as deterministic ones are, ten times as
many never arrive: the connections are full, and callers wait there. `sent` tells how many a second did leave.

Exits with status 1 where announced Monte Carlo requests are answered fewer than 90 % of the peak.
"""

from __future__ import annotations

import asyncio
import os
import sys
import time
from collections.abc import Awaitable, Coroutine, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import uvloop

from benchmarks.networks import LARGE, publish
from benchmarks.report import Report, interleave, option_parser
from benchmarks.serving.callers import FEW, Asked, Metadata, Round, arrive, p99, wait_for_answers
from benchmarks.serving.processes import dropserve_server, echo_server
from benchmarks.serving.targets import predict_target
from dropserve.v1.prediction_pb2 import PredictRequest
from dropserve_client import wire

LEAST = 0.9
TIMES = 10
ROWS = 64
_PASSES = {0: "deterministic", 100: "100 passes", 1600: "1600 passes"}
_QUEUE_SECONDS = 2.0  # of work, which the server holds by default
_MOST_CALLERS = 2000
_LEAD_SECONDS = 1.5  # until the queue is as full as it gets


@dataclass(frozen=True, slots=True)
class Load:
    """One question to a server, and where its echo is."""

    address: str
    echo: str
    message: bytes

    @property
    def announcement(self) -> Metadata:
        """As the SDK sends it."""
        return wire.announcement(PredictRequest.FromString(self.message))

    def peak(self, seconds: float, echoed: float = 0.0) -> Round:
        """By callers that wait for their answers; beside so many a second to the echo."""

        async def both() -> Round:
            begin = time.monotonic() + _LEAD_SECONDS
            round_ = Round(seconds)
            asked = Asked(self.address, self.message, round_, begin, self.announcement)
            beside = Asked(self.echo, self.message, Round(seconds), begin)
            loads: list[Awaitable[None]] = [wait_for_answers(asked.ask, begin + seconds)]
            if echoed:
                loads.append(arrive(beside.ask, begin + seconds, echoed))
            await asyncio.gather(*loads)
            await asked.close()
            await beside.close()
            return round_

        return _run(both())

    def patient(self, seconds: float, callers: int) -> Round:
        """By so many callers that wait for their answers and, refused, as long as RetryInfo says."""

        async def all_of_them() -> Round:
            begin = time.monotonic() + _LEAD_SECONDS
            round_ = Round(seconds)
            asked = Asked(self.address, self.message, round_, begin, self.announcement)
            await wait_for_answers(asked.ask, begin + seconds, callers, begin)
            await asked.close()
            return round_

        return _run(all_of_them())

    def flood(self, seconds: float, rate: float, *, announced: bool) -> Round:
        """So many a second, whatever becomes of them."""

        async def alone() -> Round:
            begin = time.monotonic() + _LEAD_SECONDS
            round_ = Round(seconds)
            metadata = self.announcement if announced else ()
            asked = Asked(self.address, self.message, round_, begin, metadata)
            await arrive(asked.ask, begin + seconds, rate)
            await asked.close()
            return round_

        return _run(alone())


def _run(load: Coroutine[Any, Any, Round]) -> Round:
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(load)


def main(argv: Sequence[str] | None = None) -> int:
    """Measure and report."""
    parser = option_parser("serving.overload", __doc__)
    parser.add_argument(
        "passes", nargs="*", type=int, metavar="PASSES", help="of 0 (deterministic), 100, 1600"
    )
    options = parser.parse_args(argv)
    if unknown := set(options.passes) - set(_PASSES):
        parser.error(f"there is no case of {min(unknown)} passes; there are {', '.join(map(str, _PASSES))}")
    seconds, rounds = (2.5, 2) if options.quick else (8.0, 3)
    report = Report("overload")
    servers_cores, own_core = _cores()
    kept = {}
    with TemporaryDirectory() as temporary:
        folder = Path(temporary)
        publish(LARGE, folder / "repository")
        _move_to(servers_cores)
        with dropserve_server(folder / "repository", folder / "log") as server, echo_server(0) as echo:
            _move_to(own_core)
            for passes in options.passes or _PASSES:
                target = predict_target(server.address, LARGE, folder, passes or None, ROWS)
                load = Load(server.address, echo.address, target.message.read_bytes())
                kept[passes] = _measure(report, f"{ROWS} rows, {_PASSES[passes]}: ", load, seconds, rounds)
    _move_to(servers_cores | own_core)
    report.finish(options.json)
    return 0 if min((part for passes, part in kept.items() if passes), default=1.0) >= LEAST else 1


def _measure(report: Report, case: str, load: Load, seconds: float, rounds: int) -> float:
    """One kind of requests; the part of the peak that is left."""
    load.peak(1)  # warms up
    peak = load.peak(seconds).goodput
    announced, unannounced = f"{case}{TIMES} times", f"{case}{TIMES} times, not announced"
    callers = min(_MOST_CALLERS, max(FEW, round(TIMES * _QUEUE_SECONDS * peak)))
    patient = f"{case}{callers} callers who wait as told"
    measured = interleave(
        {
            f"{case}peak": partial(load.peak, seconds),
            f"{case}peak beside an echo": partial(load.peak, seconds, (TIMES - 1) * peak),
            announced: partial(load.flood, seconds, TIMES * peak, announced=True),
            unannounced: partial(load.flood, seconds, TIMES * peak, announced=False),
            patient: partial(load.patient, seconds, callers),
        },
        rounds,
    )
    at_peak, beside, *_ = measured.values()
    alone = report.add(f"{case}peak", "answers", [round_.goodput for round_ in at_peak], "1/s")
    usual = report.add(f"{case}peak", "p99", [p99(round_.answered) for round_ in at_peak], "ms")
    echoed = [round_.goodput for round_ in beside]
    echo = report.add(f"{case}peak beside an echo", "answers", echoed, "1/s", against=alone)
    kept = {}
    for name in (announced, unannounced, patient):
        flooded = measured[name]
        goodput = [round_.goodput for round_ in flooded]
        kept[name] = report.add(name, "answers", goodput, "1/s", against=alone)
        report.add(name, "answers", goodput, "1/s", against=echo)
        report.add(name, "sent", [round_.sent / round_.seconds for round_ in flooded], "1/s", against=alone)
        report.add(name, "refusals", [round_.refusals for round_ in flooded], "1/s", against=alone)
        report.add(name, "p99", [p99(round_.answered) for round_ in flooded], "ms", against=usual)
        report.add(name, "p99 of refusals", [p99(round_.refused) for round_ in flooded], "ms")
        report.add(name, "other failures", [float(round_.failed) for round_ in flooded], "")
    return kept[announced].ratio or 0.0


def _cores() -> tuple[set[int], set[int]]:
    """The server's cores and the callers'; the same ones where there is but one, or they can't be chosen."""
    if not hasattr(os, "sched_setaffinity"):
        return set(), set()
    *others, last = sorted(os.sched_getaffinity(0))
    return set(others) or {last}, {last}


def _move_to(cores: set[int]) -> None:
    """Have all threads of this process, and the processes that it starts from now on, run on these cores."""
    if cores:
        for thread in os.listdir("/proc/self/task"):
            with suppress(ProcessLookupError):  # it has ended since
                os.sched_setaffinity(int(thread), cores)


if __name__ == "__main__":
    sys.exit(main())
