"""The gRPC services in this process, behind a real port, with a model that fails as told."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

import grpc
import grpc.aio
import pytest

from dropserve.inference.service_pb2_grpc import GRPCInferenceServiceStub
from dropserve.v1 import prediction_pb2
from dropserve.v1.prediction_pb2_grpc import PredictionServiceStub
from dropserve_server.grpc.announcement import Reception
from dropserve_server.grpc.calls import Calls
from dropserve_server.grpc.health import OVERALL, HealthServicer
from dropserve_server.grpc.listener import listen
from dropserve_server.grpc.open_inference import OpenInferenceServicer
from dropserve_server.grpc.prediction import PredictionServicer
from dropserve_server.grpc.protection import Protection
from dropserve_server.grpc.request_log import RequestLog
from dropserve_server.lane import Lane
from dropserve_server.metrics import Metrics
from dropserve_server.predictor import Limits, Predictor
from dropserve_server.repository import Repository
from dropserve_server.settings import Settings
from support.fake_model import FakeModel, fake_info

if TYPE_CHECKING:  # the stubs' own, not at run time
    from dropserve.inference.service_pb2_grpc import GRPCInferenceServiceAsyncStub
    from dropserve.v1.prediction_pb2_grpc import PredictionServiceAsyncStub

SECONDS = 30.0
ROW = [[1.0, 2.0, 3.0]]


@dataclass
class Service:
    """Running services with the one model "fake"."""

    model: FakeModel
    servicer: PredictionServicer
    open_inference_servicer: OpenInferenceServicer
    repository: Repository
    health: HealthServicer
    address: str
    channel: grpc.aio.Channel
    lane: Lane
    calls: Calls
    metrics: Metrics

    @property
    def stub(self) -> PredictionServiceAsyncStub:
        return PredictionServiceStub(self.channel)

    @property
    def open_inference(self) -> GRPCInferenceServiceAsyncStub:
        return GRPCInferenceServiceStub(self.channel)

    async def refusal(self, message: prediction_pb2.PredictRequest) -> grpc.aio.AioRpcError:
        with pytest.raises(grpc.aio.AioRpcError) as error:
            await self.stub.Predict(message, timeout=SECONDS)
        return error.value


def teller(health: HealthServicer) -> Callable[[str, bool | None], None]:
    """Keeps health in step with a repository."""

    def tell(name: str, served: bool | None) -> None:
        if served is None:
            health.forget(name)
        else:
            health.set(name, served)

    return tell


def run(
    scenario: Callable[[Service], Awaitable[None]],
    folder: Path,
    *,
    load: bool = True,
    interceptors: Sequence[grpc.aio.ServerInterceptor] = (),
) -> None:
    """Run the scenario, and see that nothing is in flight at its end."""

    async def life() -> None:
        (folder / "fake" / "1").mkdir(parents=True)
        model, metrics, health = FakeModel(fake_info("fake")), Metrics(), HealthServicer()
        repository = Repository(folder, lambda _: model, metrics)
        if load:
            await repository.load(1, teller(health))
            health.set(OVERALL, True)
        settings = Settings(
            repository=folder, host="127.0.0.1", grpc_port=0, default_passes=9, stream_concurrency=4
        )
        lanes = Lane("deterministic", 1, 1000), Lane("monte_carlo", 1, 1000)
        predictor = Predictor(Limits(rows=1000, passes=1000, answer_bytes=10**6), *lanes)
        calls = Calls(metrics)
        servicer = PredictionServicer(repository, predictor, calls, default_passes=9, stream_concurrency=4)
        open_inference = OpenInferenceServicer(repository, predictor, calls, health, settings)
        protection = Protection(settings, metrics, RequestLog())
        reception = Reception(repository, predictor, calls, 9)
        server, port = listen(settings, protection, servicer, open_inference, health, reception, interceptors)
        await server.start()
        try:
            address = f"127.0.0.1:{port}"
            async with grpc.aio.insecure_channel(address) as channel:
                parts = (servicer, open_inference, repository, health)
                service = Service(model, *parts, address, channel, lanes[0], calls, metrics)
                await asyncio.wait_for(scenario(service), SECONDS)
                await asyncio.wait_for(calls.idle(), SECONDS)
        finally:
            model.gate.set()
            await server.stop(None)
            for lane in lanes:
                assert await lane.close(SECONDS)

    asyncio.run(life())


async def outcome(call: Awaitable[object]) -> grpc.StatusCode:
    """The status that a call ends with."""
    try:
        await call
    except grpc.aio.AioRpcError as error:
        return error.code()
    return grpc.StatusCode.OK


async def cancelled(*_: object, **__: object) -> NoReturn:
    """Something that is waited for and will never come."""
    future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    future.cancel()
    await future
    raise AssertionError
