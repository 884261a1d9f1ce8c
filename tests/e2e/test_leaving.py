"""SIGTERM under load, with another server to go to: nobody notices."""

from __future__ import annotations

import asyncio
import signal
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import grpc.aio
import pytest

from dropserve.v1.prediction_pb2_grpc import PredictionServiceStub
from dropserve_client import AsyncClient
from support.example_repository import rows_for
from support.prediction_client import request
from support.server_process import TIMEOUT, ServerProcess, server_process

ROWS = rows_for("targets", 1)
CALLERS = 48
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


@pytest.mark.parametrize("load", [with_the_sdk, without_retries])
def test_no_call_fails_where_another_server_is(load: Any, repository: Path, server: ServerProcess) -> None:
    with server_process(repository) as leaving:
        target = f"ipv4:{leaving.address},{server.address}"
        counted = asyncio.run(load(target, leaving))
    assert set(counted) == {"answered", "before"}, counted
    assert leaving.log[-1]["event"] == "stopped"
    assert leaving.log[-1]["cut_off"] == 0
