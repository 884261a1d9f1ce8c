"""SIGTERM under load, with another server to go to: nobody notices."""

from __future__ import annotations

import asyncio
import signal
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

import grpc.aio
import pytest

from dropserve.v1.prediction_pb2_grpc import PredictionServiceStub
from dropserve_client import AsyncClient, Client
from support.example_repository import rows_for
from support.prediction_client import request
from support.server_process import TIMEOUT, ServerProcess, server_process

ROWS = rows_for("targets", 1)
CALLERS = 48
# Of a client that does not try again: gRPC may send a call while the word that the connection closes is on
# its way.
# It was not begun, and fails with UNAVAILABLE.
CROSSED = 4
# gRPC shares one connection between channels of equal options; these are to have their own.
OWN_CONNECTION = [("grpc.use_local_subchannel_pool", 1)]


async def stop_under_load(leaving: ServerProcess, ask: Sequence[Any]) -> Counter[str]:
    """Callers that ask all the time; how many calls were answered until the stop, in all, or failed."""
    counted: Counter[str] = Counter()
    stopped = asyncio.Event()

    async def caller(number: int) -> None:
        while not stopped.is_set():
            try:
                await ask[number % len(ask)]()
                counted["answered"] += 1
            except Exception as error:  # noqa: BLE001  # each is counted
                counted[repr(error)] += 1

    callers = [asyncio.ensure_future(caller(number)) for number in range(CALLERS)]
    while counted["answered"] < 5 * CALLERS:
        await asyncio.sleep(0.01)
    leaving.signal(signal.SIGTERM)
    assert await asyncio.to_thread(leaving.wait) == 0
    counted["before"] = counted["answered"]
    while counted["answered"] < counted["before"] + 5 * CALLERS:
        await asyncio.sleep(0.01)
    stopped.set()
    await asyncio.gather(*callers)
    return counted


async def with_the_sdk(target: str, leaving: ServerProcess) -> Counter[str]:
    clients = [AsyncClient(target, channel_options=OWN_CONNECTION) for _ in range(4)]
    try:
        asking = [lambda client=client: client.predict("targets", ROWS) for client in clients]
        return await stop_under_load(leaving, asking)
    finally:
        for client in clients:
            await client.close()


async def with_the_sdks_threads(target: str, leaving: ServerProcess) -> Counter[str]:
    with ExitStack() as stack, ThreadPoolExecutor(CALLERS) as threads:
        clients = [stack.enter_context(Client(target, channel_options=OWN_CONNECTION)) for _ in range(4)]
        loop = asyncio.get_running_loop()

        def asking(client: Client) -> Callable[[], Awaitable[object]]:
            return lambda: loop.run_in_executor(threads, client.predict, "targets", ROWS)

        return await stop_under_load(leaving, [asking(client) for client in clients])


async def with_the_sdks_many_batches(target: str, leaving: ServerProcess) -> Counter[str]:
    """Each call is of four batches, all of them under way at the same time."""
    clients = [AsyncClient(target, channel_options=OWN_CONNECTION) for _ in range(4)]

    async def ask(client: AsyncClient) -> None:
        answers = [answer async for answer in client.predict_many("targets", [ROWS] * 4)]
        assert len(answers) == 4

    try:
        return await stop_under_load(leaving, [partial(ask, client) for client in clients])
    finally:
        for client in clients:
            await client.close()


async def without_retries(target: str, leaving: ServerProcess) -> Counter[str]:
    options = [*OWN_CONNECTION, ("grpc.enable_retries", 0)]
    channels = [grpc.aio.insecure_channel(target, options=options) for _ in range(4)]
    try:
        stubs = [PredictionServiceStub(channel) for channel in channels]
        question = request("targets", ROWS)
        return await stop_under_load(
            leaving, [lambda stub=stub: stub.Predict(question, timeout=TIMEOUT) for stub in stubs]
        )
    finally:
        for channel in channels:
            await channel.close()


@pytest.mark.parametrize(
    ("load", "workers"),
    [
        (with_the_sdk, 1),
        (with_the_sdk, 2),
        (with_the_sdks_threads, 1),
        (with_the_sdks_many_batches, 1),
        (without_retries, 1),
    ],
)
def test_no_call_fails_where_another_server_is(
    load: Any, workers: int, repository: Path, server: ServerProcess
) -> None:
    with server_process(repository, *(["--workers", str(workers)] if workers > 1 else [])) as leaving:
        target = f"ipv4:{leaving.address},{server.address}"
        counted = asyncio.run(load(target, leaving))
    if load is without_retries:
        crossed = [text for text in counted if "StatusCode.UNAVAILABLE" in text]
        assert sum(counted.pop(text) for text in crossed) <= CROSSED, crossed
    assert set(counted) == {"answered", "before"}, counted
    ends = [line for line in leaving.log if line["event"] == "stopped"]
    assert [line["cut_off"] for line in ends] == [0] * workers
