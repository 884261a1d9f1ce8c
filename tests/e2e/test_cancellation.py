"""A storm of cancellations: the queue empties, nothing stays in flight, and who did not leave is answered."""

from __future__ import annotations

import asyncio
import os
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING

import grpc.aio

from dropserve.inference.service_pb2_grpc import GRPCInferenceServiceStub
from dropserve.v1.prediction_pb2 import MonteCarlo, PredictRequest, PredictResponse
from dropserve.v1.prediction_pb2_grpc import PredictionServiceStub
from dropserve_client import AsyncClient
from support.example_repository import rows_for
from support.open_inference import infer_request
from support.prediction_client import array_of, request
from support.server_process import TIMEOUT, ServerProcess, server_process

if TYPE_CHECKING:
    from dropserve.v1.prediction_pb2_grpc import PredictionServiceAsyncStub  # the stubs' own, not at run time

CALLS = int(os.environ.get("STORM_CALLS", "2500"))  # `make storm`: 10,000
CALLERS = 48
STAYING = 0.1  # of the calls are not cancelled
LONGEST_SECONDS = 0.03  # after which the others are: before they are sent, while they wait, are computed, ...
GROWTH = 1.2  # of resident memory, from the first half of the storm to its end

# Computed on the event loop, in a batch, on their own, and cut into slices.
QUESTIONS: tuple[PredictRequest, ...] = (
    request("targets", rows_for("targets", 1)),
    request("classes", rows_for("classes", 200)),
    request("targets", rows_for("targets", 2), MonteCarlo(passes=20, seed=1)),
    request("classes", rows_for("classes", 24), MonteCarlo(passes=20, seed=2)),
    request("classes", rows_for("classes", 400), MonteCarlo(passes=100, seed=3)),
)
UNSEEDED = request("classes", rows_for("classes", 3), MonteCarlo(passes=20))  # joined to others of its kind


@dataclass
class Storm:
    """The calls of one storm, and what became of them."""

    server: ServerProcess
    known: list[PredictResponse]
    left: int = CALLS
    ended: Counter[str] = field(default_factory=Counter)
    memory: list[int] = field(default_factory=list)

    async def caller(self, number: int) -> None:
        """Make calls as long as there are some left, and cancel most of them."""
        draw = Random(number)
        options = [("grpc.use_local_subchannel_pool", 1)]
        async with (
            grpc.aio.insecure_channel(self.server.address, options=options) as channel,
            AsyncClient(self.server.address, channel_options=options) as client,
        ):
            stub = PredictionServiceStub(channel)
            infer = GRPCInferenceServiceStub(channel).ModelInfer
            while self.left:
                self.left -= 1
                if self.left % (CALLS // 2) == 0:
                    self.memory.append(self.server.resident_bytes())
                ask = draw.choice((self._unary, self._unary, self._unseeded, self._stream))
                if draw.random() < 0.1:
                    await self._end(draw, "infer", lambda: _inferred(infer))
                elif draw.random() < 0.1:
                    await self._end(draw, "sdk", lambda: _asked(client))
                else:
                    await self._end(draw, ask.__name__, lambda ask=ask: ask(stub, draw))  # type: ignore[misc]

    async def _end(self, draw: Random, name: str, ask: Callable[[], Awaitable[None]]) -> None:
        call = asyncio.ensure_future(ask())
        if draw.random() > STAYING:
            await asyncio.sleep(draw.uniform(0, LONGEST_SECONDS))
            call.cancel()
        try:
            await call
            self.ended[f"{name} answered"] += 1
        except asyncio.CancelledError:
            self.ended[f"{name} cancelled"] += 1

    async def _unary(self, stub: PredictionServiceAsyncStub, draw: Random) -> None:
        number = draw.randrange(len(QUESTIONS))
        self._check(number, await stub.Predict(QUESTIONS[number], timeout=TIMEOUT))

    async def _unseeded(self, stub: PredictionServiceAsyncStub, draw: Random) -> None:
        answer = await stub.Predict(UNSEEDED, timeout=TIMEOUT)
        assert answer.passes == 20
        assert array_of(answer.mean).shape == (3, 3)

    async def _stream(self, stub: PredictionServiceAsyncStub, draw: Random) -> None:
        questions = [
            PredictRequest(request_id=str(number)) for number in draw.choices(range(len(QUESTIONS)), k=4)
        ]
        for question in questions:
            number = question.request_id
            question.CopyFrom(QUESTIONS[int(number)])
            question.request_id = number
        count = 0
        async for answer in stub.PredictStream(iter(questions), timeout=TIMEOUT):
            self._check(int(answer.request_id), answer)
            count += 1
        assert count == len(questions)

    def _check(self, number: int, answer: PredictResponse) -> None:
        known = self.known[number]
        assert not answer.HasField("error"), answer.error
        assert (answer.model, answer.passes) == (known.model, known.passes)
        if known.passes:
            assert (answer.mean, answer.variance) == (known.mean, known.variance)  # seeded: the same bytes
        else:
            assert abs(array_of(answer.mean) - array_of(known.mean)).max() < 1e-5


async def _inferred(infer: Callable[..., Awaitable[object]]) -> None:
    await infer(infer_request("targets", rows_for("targets", 3), {"passes": 20, "seed": 4}), timeout=TIMEOUT)


async def _asked(client: AsyncClient) -> None:
    assert (await client.predict("targets", rows_for("targets", 3), passes=20)).mean.shape == (3, 2)


async def storm(server: ServerProcess) -> Storm:
    """The storm, and behind it the same questions once more."""
    async with grpc.aio.insecure_channel(server.address) as channel:
        stub = PredictionServiceStub(channel)
        known = [await stub.Predict(question, timeout=TIMEOUT) for question in QUESTIONS]
        raging = Storm(server, known)
        async with asyncio.TaskGroup() as group:
            for number in range(CALLERS):
                group.create_task(raging.caller(number))
        for number, question in enumerate(QUESTIONS):
            raging._check(number, await stub.Predict(question, timeout=TIMEOUT))
    return raging


def test_calls_cancelled_at_random_moments(repository: Path) -> None:
    with server_process(repository, "--warm-up", "--queue-seconds", "60") as server:
        ended = asyncio.run(storm(server))
        found = server.scrape_until(lambda found: found["dropserve_inflight_requests"] == 0)
        queued = {name: rows for name, rows in found.items() if name.startswith("dropserve_queue_rows")}
        assert queued
        assert set(queued.values()) == {0}, queued
        counted: Counter[str] = Counter()
        for series, value in found.items():
            if series.startswith("dropserve_requests_total"):
                counted[series.partition('code="')[2].partition('"')[0]] += int(value)
        assert set(counted) == {"OK", "CANCELLED"}, counted
        assert counted["CANCELLED"] > CALLS / 10  # they did reach the server
        assert server.stop() == 0
    assert sum(ended.ended.values()) == CALLS
    for name in ("_unary", "_unseeded", "_stream", "infer", "sdk"):
        assert min(ended.ended[f"{name} answered"], ended.ended[f"{name} cancelled"]) > 0, ended.ended
    assert not any(line["level"] == "error" and "trace" in line for line in server.log), server.log[-5:]
    assert server.other_lines == []
    assert ended.memory[-1] < GROWTH * ended.memory[0]
