"""Ten times the capacity: what is still answered, how late, and how soon the others are refused.

``python -m benchmarks.serving.overload`` asks a server for Monte Carlo predictions of a quarter of a second
each: first by as many callers as keep it busy, each waiting for its answer, which is the peak; then ten times
as many a second, whatever becomes of them, by callers who allow half a minute, and by such who allow two
seconds. Answers count that come while the queue is full; the rounds alternate. It exits with status 1 where
the answers a second are fewer than 90 % of the peak.
"""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, TypeAlias

import grpc
import grpc.aio
import numpy as np

from benchmarks.networks import SMALL, publish
from benchmarks.report import Report, interleave, option_parser
from benchmarks.serving.load import PREDICT
from benchmarks.serving.processes import dropserve_server
from dropserve_client import wire

LEAST = 0.9
TIMES = 10
CALL_SECONDS = 0.25  # so that refusing nine of ten costs little beside answering one
_CALLERS = 8
_PAUSE_SECONDS = 0.05  # of one of them that is refused
_CONNECTIONS = 4
_LEAD_SECONDS = 3.0  # until the queue is as full as it gets
_PATIENT, _HURRIED = 30.0, 2.0  # seconds that callers allow
_ROWS = {"whole": 64, "in slices": 1024}  # how requests of so many rows are computed


Ask: TypeAlias = Callable[[float], Coroutine[Any, Any, bool]]
"""Makes a call, and allows it so many seconds; whether it was answered."""


@dataclass
class Round:
    """What became of the requests of one round: the seconds that each took."""

    seconds: float
    answered: list[float] = field(default_factory=list)
    refused: list[float] = field(default_factory=list)
    late: int = 0

    @property
    def goodput(self) -> float:
        """Answers a second."""
        return len(self.answered) / self.seconds

    @property
    def p99(self) -> float:
        """Within how many milliseconds 99 % of the answers came."""
        return _p99(self.answered)

    @property
    def refused_p99(self) -> float:
        """Within how many milliseconds 99 % of the refusals came."""
        return _p99(self.refused)


def _p99(seconds: Sequence[float]) -> float:
    return 1000 * float(np.quantile(seconds, 0.99)) if seconds else 0.0


class Load:
    """Asks one question of a server, by several connections."""

    def __init__(self, address: str, message: bytes) -> None:
        self._address = address
        self._message = message

    def peak(self, seconds: float) -> Round:
        """By callers that wait for their answers."""

        async def callers(ask: Ask, end: float) -> None:
            async def caller() -> None:
                while time.monotonic() < end:
                    if not await ask(_PATIENT):
                        await asyncio.sleep(_PAUSE_SECONDS)

            await asyncio.gather(*(caller() for _ in range(_CALLERS)))

        return asyncio.run(self._round(seconds, callers))

    def flood(self, seconds: float, rate: float, timeout: float) -> Round:
        """So many a second, whatever becomes of them."""

        async def arrivals(ask: Ask, end: float) -> None:
            async with asyncio.TaskGroup() as group:
                due = time.monotonic()
                while due < end:
                    await asyncio.sleep(max(0.0, due - time.monotonic()))
                    group.create_task(ask(timeout))
                    due += 1 / rate

        return asyncio.run(self._round(seconds, arrivals))

    async def _round(self, seconds: float, load: Callable[[Ask, float], Awaitable[None]]) -> Round:
        options = [("grpc.use_local_subchannel_pool", 1)]
        channels = [grpc.aio.insecure_channel(self._address, options=options) for _ in range(_CONNECTIONS)]
        calls: list[Any] = [channel.unary_unary(PREDICT) for channel in channels]
        round_ = Round(seconds)
        begin = time.monotonic() + _LEAD_SECONDS
        end = begin + seconds
        count = 0

        async def ask(timeout: float) -> bool:
            nonlocal count
            count += 1
            started = time.monotonic()
            try:
                await calls[count % _CONNECTIONS](self._message, timeout=timeout)
            except grpc.aio.AioRpcError as error:
                if error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED:
                    round_.refused.append(time.monotonic() - started)
                else:
                    round_.late += 1
                return False
            if begin < time.monotonic() < end:
                round_.answered.append(time.monotonic() - started)
            return True

        await load(ask, end)
        for channel in channels:
            await channel.close()
        return round_


def main(argv: Sequence[str] | None = None) -> int:
    """Measure and report."""
    options = option_parser("serving.overload", __doc__).parse_args(argv)
    seconds, rounds = (4.0, 1) if options.quick else (8.0, 3)
    report = Report("overload")
    with TemporaryDirectory() as temporary:
        folder = Path(temporary)
        publish(SMALL, folder / "repository")
        with dropserve_server(folder / "repository", folder / "log") as server:
            kept = [
                _measure(report, how, rows, server.address, seconds, rounds) for how, rows in _ROWS.items()
            ]
    report.finish(options.json)
    return 0 if min(kept) >= LEAST else 1


def _measure(report: Report, how: str, rows: int, address: str, seconds: float, rounds: int) -> float:
    """One size of requests; the smaller part of the peak that is left."""
    load, passes = _calibrated(address, rows)
    load.peak(1)  # warms up: masks are kept
    peak = load.peak(seconds).goodput
    cases: dict[str, Callable[[], Round]] = {"peak": lambda: load.peak(seconds)}
    for timeout in (_PATIENT, _HURRIED):
        cases[f"{TIMES} times, allowing {timeout:g} s"] = partial(load.flood, seconds, TIMES * peak, timeout)
    measured = interleave(cases, rounds)
    case = f"{SMALL.name}, {rows} rows, {passes} passes ({how}): "
    best = slowest = None
    kept = []
    for load_, done in measured.items():
        rate = report.add(case + load_, "answers", [round_.goodput for round_ in done], "1/s", against=best)
        last = report.add(case + load_, "p99", [round_.p99 for round_ in done], "ms", against=slowest)
        if best is not None:
            report.add(case + load_, "p99 of refusals", [round_.refused_p99 for round_ in done], "ms")
            report.add(case + load_, "late", [float(round_.late) for round_ in done], "")
            kept.append(rate.ratio or 0.0)
        best, slowest = best or rate, slowest or last
    return min(kept)


def _calibrated(address: str, rows: int) -> tuple[Load, int]:
    """A request that takes about the time it should, and its passes."""
    features = np.random.default_rng(0).normal(size=(rows, SMALL.sizes[0])).astype(np.float32)
    passes = 50
    with grpc.insecure_channel(address) as channel:
        predict: grpc.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(PREDICT)
        while True:
            ask = wire.question(SMALL.name, passes=passes)
            message = wire.predict_request(ask, features).SerializeToString()
            predict(message, timeout=_PATIENT)
            started = time.monotonic()
            predict(message, timeout=_PATIENT)
            took = time.monotonic() - started
            if took > CALL_SECONDS / 2 or passes >= 8000:
                return Load(address, message), passes
            passes *= 2


if __name__ == "__main__":
    sys.exit(main())
