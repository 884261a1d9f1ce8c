"""64 clients in mixed modes for 10 seconds: no error, no wrong row, flat memory."""

from __future__ import annotations

import asyncio
import itertools
import time
from pathlib import Path
from typing import TYPE_CHECKING

import grpc.aio
import numpy as np

from dropserve.v1.prediction_pb2 import MonteCarlo, PredictRequest, PredictResponse
from dropserve.v1.prediction_pb2_grpc import PredictionServiceStub
from support.example_repository import NETWORKS, expected, rows_for
from support.prediction_client import array_of, request
from support.server_process import TIMEOUT, ServerProcess, server_process

if TYPE_CHECKING:
    from dropserve.v1.prediction_pb2_grpc import PredictionServiceAsyncStub  # the stubs' own, not at run time

CLIENTS = 64
CONNECTIONS = 8
SECONDS = 10.0
SETTLED_SECONDS = 4.0  # after which memory must not grow any more
GROWTH = 1.05

Question = tuple[PredictRequest, PredictResponse]


async def questions_of(client: int, stub: PredictionServiceAsyncStub) -> list[Question]:
    """What one client asks, over and over, each with its answer: rows that no other client has."""
    questions = []
    for number, name in enumerate(NETWORKS):
        rows = rows_for(name, 1 + (7 * client + number) % 24, seed=1000 * client + number)
        plain = request(name, rows, request_id=f"{client}-{name}")
        answer = await stub.Predict(plain, timeout=TIMEOUT)
        np.testing.assert_allclose(
            array_of(answer.mean), expected(NETWORKS[name], rows), rtol=1e-4, atol=1e-5
        )
        questions.append((plain, answer))
        if name != "plain":
            options = MonteCarlo(passes=20 + client, seed=client, quantiles=[0.5])
            bars = request(name, rows, options, request_id=f"{client}-{name}-bars")
            questions.append((bars, await stub.Predict(bars, timeout=TIMEOUT)))
    return questions


def check(answer: PredictResponse, known: PredictResponse) -> None:
    assert not answer.HasField("error"), answer.error
    assert (answer.request_id, answer.model, answer.version) == (known.request_id, known.model, known.version)
    if known.passes:
        for field in ("mean", "variance", "standard_error", "quantiles", "predictive_entropy"):
            assert getattr(answer, field) == getattr(known, field), field  # seeded: the same bytes
    else:
        np.testing.assert_allclose(array_of(answer.mean), array_of(known.mean), rtol=1e-5, atol=1e-6)


async def unary_client(stub: PredictionServiceAsyncStub, questions: list[Question], end: float) -> int:
    for count, (question, known) in enumerate(itertools.cycle(questions)):
        if time.monotonic() > end:
            return count
        check(await stub.Predict(question, timeout=TIMEOUT), known)
    raise AssertionError


async def stream_client(stub: PredictionServiceAsyncStub, questions: list[Question], end: float) -> int:
    known = {answer.request_id: answer for _, answer in questions}
    count = 0
    while time.monotonic() < end:
        call = stub.PredictStream((question for question, _ in questions), timeout=TIMEOUT)
        ids = set()
        async for answer in call:
            check(answer, known[answer.request_id])
            ids.add(answer.request_id)
        assert ids == set(known)
        count += len(ids)
    return count


async def load(server: ServerProcess) -> tuple[int, int, int]:
    """Requests answered, and the server's resident bytes once settled and at the end."""
    options = [("grpc.use_local_subchannel_pool", 1)]
    channels = [grpc.aio.insecure_channel(server.address, options=options) for _ in range(CONNECTIONS)]
    stubs = [PredictionServiceStub(channel) for channel in channels]
    questions = [await questions_of(client, stubs[client % CONNECTIONS]) for client in range(CLIENTS)]
    end = time.monotonic() + SECONDS
    clients = [
        asyncio.ensure_future(
            (stream_client if client % 4 == 0 else unary_client)(stubs[client % CONNECTIONS], asked, end)
        )
        for client, asked in enumerate(questions)
    ]
    await asyncio.sleep(SETTLED_SECONDS)
    settled = await asyncio.to_thread(server.resident_bytes)
    answered = sum(await asyncio.gather(*clients))
    last = server.resident_bytes()
    for channel in channels:
        await channel.close()
    return answered, settled, last


def test_64_clients_in_mixed_modes(repository: Path) -> None:
    with server_process(repository) as server:
        answered, settled, last = asyncio.run(load(server))
        found = server.scrape()
        failed = [event for event in server.log if event["event"] == "request failed"]
        assert server.stop() == 0
    assert failed == []
    assert answered > CLIENTS
    assert last < GROWTH * settled, f"resident memory grew from {settled} to {last} bytes"
    assert found["dropserve_inflight_requests"] == 0
    counted = {name: value for name, value in found.items() if name.startswith("dropserve_requests_total")}
    assert all('code="OK"' in series for series in counted)
    setup = CLIENTS * (2 * len(NETWORKS) - 1)
    assert sum(counted.values()) == answered + setup
