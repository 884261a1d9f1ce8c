"""The load generator where there is no h2load; see `benchmarks.serving.load`."""

from __future__ import annotations

import asyncio
import json
import sys
import time
from pathlib import Path

import grpc.aio
import uvloop

from benchmarks.serving.load import CONCURRENCY, PREDICT


async def load(address: str, message: bytes, answer_bytes: int, calls: int) -> float:
    """Make the calls; how many a second were answered."""
    remaining = iter(range(calls))

    async def caller(channel: grpc.aio.Channel) -> None:
        method: grpc.aio.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(PREDICT)
        for _ in remaining:
            answer = await method(message, timeout=60)
            if not 0.9 * answer_bytes < len(answer) < 1.1 * answer_bytes:
                raise RuntimeError(f"an answer of {len(answer)} bytes, not {answer_bytes}")

    # gRPC shares one connection between channels of equal options; these are to have their own.
    options = [("grpc.use_local_subchannel_pool", 1)]
    channels = [grpc.aio.insecure_channel(address, options) for _ in range(CONCURRENCY)]
    await asyncio.gather(*(channel.channel_ready() for channel in channels))
    started = time.perf_counter()
    await asyncio.gather(*(caller(channel) for channel in channels))
    seconds = time.perf_counter() - started
    await asyncio.gather(*(channel.close() for channel in channels))
    return calls / seconds


def main() -> None:
    """Print the outcome as JSON."""
    address, message, answer_bytes, calls = sys.argv[1:]
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        rate = runner.run(load(address, Path(message).read_bytes(), int(answer_bytes), int(calls)))
    print(json.dumps({"calls_a_second": rate}))


if __name__ == "__main__":
    main()
