"""Far more work than there is capacity: who can't be answered in time is told so at once."""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import Iterator
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

import grpc
import grpc.aio
import pytest

from dropserve.v1.prediction_pb2 import MonteCarlo, PredictResponse
from dropserve.v1.prediction_pb2_grpc import PredictionServiceStub
from dropserve_client import AsyncClient
from support.example_repository import rows_for
from support.prediction_client import Refusal, array_of, refusal_of, request
from support.server_process import TIMEOUT, ServerProcess, server_process

QUEUE_ROWS, QUEUE_SECONDS = 3000, 0.3
QUESTION = request("classes", rows_for("classes", 60), MonteCarlo(passes=1000, seed=1))
QUICK = request("targets", rows_for("targets", 3))
ANNOUNCEMENT = (("dropserve-model", "classes"), ("dropserve-rows", "60"), ("dropserve-passes", "1000"))
FLOOD_SECONDS = 4.0
AT_ONCE = 200  # some four times what the queue holds
PATIENT = 100


@dataclass
class Flood:
    """What became of the requests: the seconds that each took, by its end."""

    known: PredictResponse
    answered: list[float] = field(default_factory=list)
    refused: list[float] = field(default_factory=list)
    refusals: list[Refusal] = field(default_factory=list)
    quick: list[float] = field(default_factory=list)
    queued: list[float] = field(default_factory=list)


async def flood(server: ServerProcess, metadata: tuple[tuple[str, str], ...]) -> Flood:
    """Ask for more than there is capacity, and meanwhile deterministically."""
    async with grpc.aio.insecure_channel(server.address) as channel:
        stub = PredictionServiceStub(channel)
        found = Flood(await stub.Predict(QUESTION, timeout=TIMEOUT))
        point = await stub.Predict(QUICK, timeout=TIMEOUT)
        end = time.monotonic() + FLOOD_SECONDS

        async def caller() -> None:
            while (started := time.monotonic()) < end:
                try:
                    answer = await stub.Predict(QUESTION, timeout=TIMEOUT, metadata=metadata)
                    assert (answer.mean, answer.variance) == (found.known.mean, found.known.variance)
                    found.answered.append(time.monotonic() - started)
                except grpc.aio.AioRpcError as error:
                    found.refusals.append(refusal_of(error))
                    found.refused.append(time.monotonic() - started)
                    await asyncio.sleep(0.1)  # callers are many, but none asks without a pause

        async def deterministic() -> None:
            while (started := time.monotonic()) < end:
                answer = await stub.Predict(QUICK, timeout=TIMEOUT)
                assert abs(array_of(answer.mean) - array_of(point.mean)).max() < 1e-5
                found.quick.append(time.monotonic() - started)
                await asyncio.sleep(0.01)

        async def observer() -> None:
            rows = 'dropserve_queue_rows{mode="monte_carlo",model="classes"}'
            while time.monotonic() < end:
                found.queued.append((await asyncio.to_thread(server.scrape))[rows])
                await asyncio.sleep(0.1)

        async with asyncio.TaskGroup() as group:
            for _ in range(AT_ONCE):
                group.create_task(caller())
            group.create_task(deterministic())
            group.create_task(observer())
        assert (await stub.Predict(QUESTION, timeout=TIMEOUT)).mean == found.known.mean
    return found


@pytest.fixture
def server(repository: Path) -> Iterator[ServerProcess]:
    options = ["--max-rows", "100", "--queue-rows", str(QUEUE_ROWS), "--queue-seconds", str(QUEUE_SECONDS)]
    with server_process(repository, *options, "--warm-up") as process:
        yield process


@pytest.mark.parametrize("metadata", [(), ANNOUNCEMENT], ids=["read", "announced"])
def test_overload_refuses_at_once_and_nothing_else_breaks(
    metadata: tuple[tuple[str, str], ...], server: ServerProcess
) -> None:
    found = asyncio.run(flood(server, metadata))
    assert len(found.answered) > 5
    assert len(found.refusals) > len(found.answered)
    for refusal in found.refusals:
        assert refusal.code is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert refusal.retry_seconds is not None
        assert 0 < refusal.retry_seconds < 10
        assert "try again later" in refusal.message
    # A refusal waits for nothing; what is answered has waited in the queue.
    assert median(found.refused) < median(found.answered)
    assert len(found.quick) > 5
    assert median(found.quick) < median(found.answered)
    assert 0 < max(found.queued) <= QUEUE_ROWS

    scraped = server.scrape()
    rejected = scraped['dropserve_rejected_total{model="classes",reason="queue_full"}']
    assert rejected == len(found.refusals)
    assert scraped["dropserve_inflight_requests"] == 0
    assert scraped['dropserve_queue_rows{mode="monte_carlo",model="classes"}'] == 0
    assert not any("trace" in line for line in server.log)
    assert server.stop() == 0
    assert server.other_lines == []


def test_patient_clients_are_answered_in_turn_however_many(server: ServerProcess) -> None:
    rows = rows_for("classes", 60)

    async def ask_all_at_once() -> list[bytes]:
        async with AsyncClient(server.address, patient=True, timeout=TIMEOUT) as client:
            first = await client.predict("classes", rows, passes=1000, seed=1)
            asked = (client.predict("classes", rows, passes=1000, seed=1) for _ in range(PATIENT))
            return [answer.mean.tobytes() for answer in (first, *await asyncio.gather(*asked))]

    assert len(set(asyncio.run(ask_all_at_once()))) == 1
    rejected = server.scrape()['dropserve_rejected_total{model="classes",reason="queue_full"}']
    assert PATIENT / 4 < rejected < 5 * PATIENT  # few come in vain


def test_calls_that_come_faster_than_they_are_taken_in_are_all_answered(repository: Path) -> None:
    """Of more than 1000 that wait to be taken in, gRPC would cancel some by itself, without a word."""

    async def all_of_them(server: ServerProcess) -> list[PredictResponse]:
        async with AsyncExitStack() as stack:
            # Each has its own connections, not one that they share.
            own = [("grpc.use_local_subchannel_pool", 1)]
            stubs = [
                PredictionServiceStub(
                    await stack.enter_async_context(grpc.aio.insecure_channel(server.address, own))
                )
                for _ in range(4)
            ]
            for stub in stubs:
                await stub.Predict(QUICK, timeout=TIMEOUT)
            server.process.send_signal(signal.SIGSTOP)
            try:
                calls = [stub.Predict(QUICK, timeout=TIMEOUT) for _ in range(700) for stub in stubs]
                await asyncio.sleep(0.5)
            finally:
                server.process.send_signal(signal.SIGCONT)
            return list(await asyncio.gather(*calls))

    with server_process(repository) as server:
        answers = asyncio.run(all_of_them(server))
    assert len({answer.mean.SerializeToString() for answer in answers}) == 1
