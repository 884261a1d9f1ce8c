"""Callers of a server that has more to do than it can: who wait for their answers, and who don't."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import grpc
import grpc.aio
import numpy as np

from benchmarks.serving.load import PREDICT
from dropserve_client.foreign import retry_seconds

FEW = 8
"""Callers who keep a server busy."""
_PAUSE_SECONDS = 0.05  # of one that is refused, and not told how long to wait
_CONNECTIONS = 4
_IN_FLIGHT = 1000  # calls of those who don't wait; where so many are in the connections, none is made
_TIMEOUT = 30.0

Metadata: TypeAlias = tuple[tuple[str, str], ...]

Ask: TypeAlias = Callable[[], Coroutine[Any, Any, float]]
"""Makes a call; how many seconds to wait until the next: none where it was answered, or as it was told."""


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

    async def ask(self) -> float:
        """Make a call; see `Ask`."""
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
            return retry_seconds(error.trailing_metadata()) or _PAUSE_SECONDS
        if self._begin < time.monotonic() < self._end:
            self._round.answered.append(time.monotonic() - started)
        return 0.0

    async def close(self) -> None:
        """Close the connections."""
        for channel in self._channels:
            await channel.close()


async def wait_for_answers(ask: Ask, end: float, callers: int = FEW, begin: float = 0.0) -> None:
    """Ask as so many callers do that wait for their answers and, refused, as long as they are told.

    They begin one after the other, until `begin`.
    """
    started = time.monotonic()

    async def caller(number: int) -> None:
        await asyncio.sleep(max(0.0, begin - started) * number / callers)
        while time.monotonic() < end:
            await asyncio.sleep(max(0.0, min(await ask(), end - time.monotonic())))

    await asyncio.gather(*(caller(number) for number in range(callers)))


async def arrive(ask: Ask, end: float, rate: float) -> None:
    """Ask so many times a second, whatever becomes of it; what is under way at the end is dropped."""
    under_way: set[asyncio.Task[float]] = set()
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
