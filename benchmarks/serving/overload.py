"""Ten times the capacity: what is still answered, how late, and how soon the others are refused.

``python -m benchmarks.serving.overload`` asks a server for predictions of 64 rows, deterministically and with
Monte Carlo passes: first by callers that keep it busy, each waiting for its answer, which is the peak; then
ten times as many a second, evenly spread, whatever becomes of them. None is tried again, as the SDK would try
UNAVAILABLE and CANCELLED again. Answers count that come while the queue is full; the cases alternate.

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
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, TypeAlias

import grpc
import grpc.aio
import numpy as np
import uvloop

from benchmarks.networks import LARGE, publish
from benchmarks.report import Report, interleave, option_parser
from benchmarks.serving.load import PREDICT
from benchmarks.serving.processes import dropserve_server, echo_server
from benchmarks.serving.targets import predict_target
from dropserve.v1.prediction_pb2 import PredictRequest
from dropserve_client import wire

LEAST = 0.9
TIMES = 10
ROWS = 64
_PASSES = {0: "deterministic", 100: "100 passes", 1600: "1600 passes"}
_CALLERS = 8
_PAUSE_SECONDS = 0.05  # of one of them that is refused
_CONNECTIONS = 4
_IN_FLIGHT = 1000  # calls of the flood; where so many are in the connections still, no more are sent
_LEAD_SECONDS = 1.5  # until the queue is as full as it gets
_TIMEOUT = 30.0

Metadata: TypeAlias = tuple[tuple[str, str], ...]

Ask: TypeAlias = Callable[[], Coroutine[Any, Any, bool]]
"""Makes a call; whether it was answered."""


@dataclass
class Round:
    """What became of the requests of one round, without its first moments: the seconds that each took."""

    seconds: float
    answered: list[float] = field(default_factory=list)
    refused: list[float] = field(default_factory=list)
    failed: int = 0
    sent: int = 0

    @property
    def goodput(self) -> float:
        """Answers a second."""
        return len(self.answered) / self.seconds

    @property
    def refusals(self) -> float:
        """Refusals a second."""
        return len(self.refused) / self.seconds


def p99(seconds: Sequence[float]) -> float:
    """Within how many milliseconds 99 % came; 0 where nothing did."""
    return 1000 * float(np.quantile(seconds, 0.99)) if seconds else 0.0


class Asked:
    """A server's method, called for the time of a context by several connections, with one message."""

    def __init__(
        self, address: str, message: bytes, round_: Round, begin: float, metadata: Metadata = ()
    ) -> None:
        options = [("grpc.use_local_subchannel_pool", 1)]
        self._channels = [grpc.aio.insecure_channel(address, options=options) for _ in range(_CONNECTIONS)]
        self._calls: list[Any] = [channel.unary_unary(PREDICT) for channel in self._channels]
        self._message = message
        self._metadata = metadata
        self._round = round_
        self._begin, self._end = begin, begin + round_.seconds
        self._count = 0

    async def ask(self) -> bool:
        """Make a call; whether it was answered."""
        self._count += 1
        started = time.monotonic()
        self._round.sent += self._begin < started < self._end
        try:
            await self._calls[self._count % _CONNECTIONS](
                self._message, timeout=_TIMEOUT, metadata=self._metadata
            )
        except grpc.aio.AioRpcError as error:
            if error.code() is not grpc.StatusCode.RESOURCE_EXHAUSTED:
                self._round.failed += 1
            elif self._begin < time.monotonic() < self._end:
                self._round.refused.append(time.monotonic() - started)
            return False
        if self._begin < time.monotonic() < self._end:
            self._round.answered.append(time.monotonic() - started)
        return True

    async def close(self) -> None:
        """Close the connections."""
        for channel in self._channels:
            await channel.close()


async def wait_for_answers(ask: Ask, end: float) -> None:
    """Ask as callers do that wait for their answers, for ever."""

    async def caller() -> None:
        while time.monotonic() < end:
            if not await ask():
                await asyncio.sleep(_PAUSE_SECONDS)

    await asyncio.gather(*(caller() for _ in range(_CALLERS)))


async def arrive(ask: Ask, end: float, rate: float) -> None:
    """Ask so many times a second, whatever becomes of it; what is under way at the end is dropped."""
    under_way: set[asyncio.Task[bool]] = set()
    due = time.monotonic()
    while due < end and time.monotonic() < end:
        await asyncio.sleep(max(0.0, due - time.monotonic()))
        due += 1 / rate
        if len(under_way) < _IN_FLIGHT:
            task = asyncio.ensure_future(ask())
            under_way.add(task)
            task.add_done_callback(under_way.discard)
    for task in under_way:
        task.cancel()
    await asyncio.gather(*under_way, return_exceptions=True)


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
    measured = interleave(
        {
            f"{case}peak": partial(load.peak, seconds),
            f"{case}peak beside an echo": partial(load.peak, seconds, (TIMES - 1) * peak),
            announced: partial(load.flood, seconds, TIMES * peak, announced=True),
            unannounced: partial(load.flood, seconds, TIMES * peak, announced=False),
        },
        rounds,
    )
    at_peak, beside, *_ = measured.values()
    alone = report.add(f"{case}peak", "answers", [round_.goodput for round_ in at_peak], "1/s")
    usual = report.add(f"{case}peak", "p99", [p99(round_.answered) for round_ in at_peak], "ms")
    echoed = [round_.goodput for round_ in beside]
    echo = report.add(f"{case}peak beside an echo", "answers", echoed, "1/s", against=alone)
    kept = {}
    for name in (announced, unannounced):
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
