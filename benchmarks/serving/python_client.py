"""The load generator where there is no h2load; see `benchmarks.serving.load`."""

from __future__ import annotations

import asyncio
import json
import sys
import time
from pathlib import Path

import grpc.aio
import uvloop

from benchmarks.serving.load import PREDICT


async def load(
    address: str, message: bytes, answer_bytes: int, calls: int, callers: int, seconds_between: float
) -> dict[str, list[float]]:
    """Make the calls, those of one caller so many seconds apart.

    Returns
    -------
    dict
        "each": what every call took, in the order of their ends; "all": what all of them took. Seconds.
    """
    remaining = iter(range(calls))
    each: list[float] = []

    async def caller(channel: grpc.aio.Channel, number: int) -> None:
        method: grpc.aio.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(PREDICT)
        due = time.perf_counter() + seconds_between * number / callers
        for _ in remaining:
            if seconds_between:
                await asyncio.sleep(max(0.0, due - time.perf_counter()))
                due += seconds_between
            started = time.perf_counter()
            answer = await method(message, timeout=60)
            each.append(time.perf_counter() - started)
            if not 0.9 * answer_bytes < len(answer) < 1.1 * answer_bytes:
                raise RuntimeError(f"an answer of {len(answer)} bytes, not {answer_bytes}")

    # gRPC shares one connection between channels of equal options; these are to have their own.
    options = [("grpc.use_local_subchannel_pool", 1)]
    channels = [grpc.aio.insecure_channel(address, options) for _ in range(callers)]
    await asyncio.gather(*(channel.channel_ready() for channel in channels))
    started = time.perf_counter()
    await asyncio.gather(*(caller(channel, number) for number, channel in enumerate(channels)))
    seconds = time.perf_counter() - started
    await asyncio.gather(*(channel.close() for channel in channels))
    return {"each": each, "all": [seconds]}


def main() -> None:
    """Print the outcome as JSON."""
    address, message, answer_bytes, calls, callers, seconds_between = sys.argv[1:]
    body = Path(message).read_bytes()
    work = load(address, body, int(answer_bytes), int(calls), int(callers), float(seconds_between))
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        print(json.dumps(runner.run(work)))


if __name__ == "__main__":
    main()
