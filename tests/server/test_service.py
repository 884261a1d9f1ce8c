"""PredictionService in this process, behind a real port, with a model that fails as told."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import grpc
import grpc.aio
import pytest

from dropserve.v1 import prediction_pb2
from dropserve.v1.prediction_pb2 import MonteCarlo
from dropserve.v1.prediction_pb2_grpc import PredictionServiceStub
from dropserve_models.errors import InputError
from dropserve_server.grpc.calls import Calls
from dropserve_server.grpc.health import HealthServicer
from dropserve_server.grpc.listener import listen
from dropserve_server.grpc.prediction import PredictionServicer
from dropserve_server.grpc.protection import Protection
from dropserve_server.grpc.request_log import RequestLog
from dropserve_server.grpc.status import INTERNAL_MESSAGE
from dropserve_server.lane import Lane
from dropserve_server.metrics import Metrics
from dropserve_server.predictor import Limits, Predictor
from dropserve_server.repository import Repository
from dropserve_server.settings import Settings
from support.fake_model import FakeModel, fake_info
from support.prediction_client import array_of, request

if TYPE_CHECKING:
    from dropserve.v1.prediction_pb2_grpc import PredictionServiceAsyncStub  # the stubs' own, not at run time

SECONDS = 30.0
ROW = [[1.0, 2.0, 3.0]]


@dataclass
class Service:
    """A running service with the one model "fake"."""

    model: FakeModel
    servicer: PredictionServicer
    repository: Repository
    channel: grpc.aio.Channel
    lane: Lane
    metrics: Metrics

    @property
    def stub(self) -> PredictionServiceAsyncStub:
        return PredictionServiceStub(self.channel)

    async def refusal(self, message: prediction_pb2.PredictRequest) -> grpc.aio.AioRpcError:
        with pytest.raises(grpc.aio.AioRpcError) as error:
            await self.stub.Predict(message, timeout=SECONDS)
        return error.value


def run(scenario: Callable[[Service], Awaitable[None]], folder: Path, *, load: bool = True) -> None:
    async def life() -> None:
        (folder / "fake" / "1").mkdir(parents=True)
        model, metrics = FakeModel(fake_info("fake")), Metrics()
        repository = Repository(folder, lambda _: model, metrics)
        if load:
            await repository.load(1, lambda *_: None)
        lanes = Lane("deterministic", 1, 1000), Lane("monte_carlo", 1, 1000)
        predictor = Predictor(Limits(rows=1000, passes=1000, answer_bytes=10**6), *lanes)
        calls = Calls(metrics)
        servicer = PredictionServicer(repository, predictor, calls, default_passes=9, stream_concurrency=4)
        settings = Settings(repository=folder, host="127.0.0.1", grpc_port=0)
        protection = Protection(settings, metrics, RequestLog())
        server, port = listen(settings, protection, servicer, HealthServicer())
        await server.start()
        try:
            async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
                await asyncio.wait_for(
                    scenario(Service(model, servicer, repository, channel, lanes[0], metrics)), SECONDS
                )
                await asyncio.wait_for(calls.idle(), SECONDS)
        finally:
            model.gate.set()
            await server.stop(None)
            for lane in lanes:
                assert await lane.close(SECONDS)

    asyncio.run(life())


def test_a_bug_is_internal_to_the_caller_and_a_trace_in_the_log(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async def scenario(service: Service) -> None:
        service.model.error = ZeroDivisionError("the secret of the model")
        error = await service.refusal(request("fake", ROW, request_id="r-9"))
        assert error.code() is grpc.StatusCode.INTERNAL
        assert error.details() == INTERNAL_MESSAGE
        service.model.error = None
        assert (await service.stub.Predict(request("fake", ROW))).mean.shape == [1, 2]

    run(scenario, tmp_path)
    (record,) = [record for record in caplog.records if record.getMessage() == "request failed"]
    assert record.levelno == logging.ERROR
    assert record.exc_info
    assert record.exc_info[0] is ZeroDivisionError
    assert vars(record)["request_id"] == "r-9"


def test_a_bug_in_a_stream_fails_one_message(tmp_path: Path) -> None:
    async def scenario(service: Service) -> None:
        service.model.error = ZeroDivisionError("the secret of the model")
        questions = [request("fake", ROW, request_id="bug"), request("nothing", ROW, request_id="unknown")]
        answers = {a.request_id: a async for a in service.stub.PredictStream(iter(questions))}
        assert answers["bug"].error.code == grpc.StatusCode.INTERNAL.value[0]
        assert answers["bug"].error.message == INTERNAL_MESSAGE
        assert answers["unknown"].error.code == grpc.StatusCode.NOT_FOUND.value[0]

    run(scenario, tmp_path)


def test_what_the_model_refuses_is_an_invalid_argument(tmp_path: Path) -> None:
    async def scenario(service: Service) -> None:
        service.model.error = InputError("seed", "no such seed")
        error = await service.refusal(request("fake", ROW, MonteCarlo(seed=1)))
        assert (error.code(), error.details()) == (grpc.StatusCode.INVALID_ARGUMENT, "no such seed")

    run(scenario, tmp_path)


def test_work_cancelled_on_our_side_still_gets_the_caller_a_status(tmp_path: Path) -> None:
    """A handler that raises CancelledError leaves its caller waiting for ever (grpc#29248)."""

    async def scenario(service: Service) -> None:
        service.model.gate.clear()
        call = service.stub.Predict(request("fake", ROW), timeout=SECONDS)
        pending = asyncio.ensure_future(_outcome(call))
        await asyncio.to_thread(service.model.entered.acquire)
        handlers = [task for task in asyncio.all_tasks() if "HandleExceptions" in task.get_name()]
        assert len(handlers) == 1
        handlers[0].cancel()
        assert await asyncio.wait_for(pending, SECONDS / 2) is grpc.StatusCode.CANCELLED
        service.model.gate.set()

    run(scenario, tmp_path)


async def _outcome(call: Awaitable[object]) -> grpc.StatusCode:
    try:
        await call
    except grpc.aio.AioRpcError as error:
        return error.code()
    return grpc.StatusCode.OK


def test_a_caller_that_leaves_frees_its_place(tmp_path: Path) -> None:
    async def scenario(service: Service) -> None:
        service.model.gate.clear()
        first = asyncio.ensure_future(_outcome(service.stub.Predict(request("fake", ROW))))
        await asyncio.to_thread(service.model.entered.acquire)
        leaving = service.stub.Predict(request("fake", ROW * 5))
        while service.lane.rows < 6:
            await asyncio.sleep(0.001)
        leaving.cancel()
        while service.metrics.inflight > 1:
            await asyncio.sleep(0.001)
        service.model.gate.set()
        assert await first is grpc.StatusCode.OK
        while service.lane.rows:
            await asyncio.sleep(0.001)
        assert [len(features) for features, _ in service.model.calls] == [1]

    run(scenario, tmp_path)


def test_passes_default_to_the_setting_and_many_values_are_read(tmp_path: Path) -> None:
    async def scenario(service: Service) -> None:
        assert (await service.stub.Predict(request("fake", ROW, MonteCarlo()))).passes == 9
        many = prediction_pb2.PredictRequest(model="fake")
        many.inputs.shape.extend([1000, 3])
        many.inputs.values.extend([1.0] * 3000)
        assert array_of((await service.stub.Predict(many)).mean).tolist() == [[3.0, 4.0]] * 1000

    run(scenario, tmp_path)


def test_before_the_models_are_loaded_everything_is_unavailable(tmp_path: Path) -> None:
    async def scenario(service: Service) -> None:
        assert (await service.refusal(request("fake", ROW))).code() is grpc.StatusCode.UNAVAILABLE
        calls = (
            service.stub.ListModels(prediction_pb2.ListModelsRequest()),
            service.stub.GetModel(prediction_pb2.GetModelRequest(name="fake")),
        )
        for call in calls:
            assert await _outcome(call) is grpc.StatusCode.UNAVAILABLE

    run(scenario, tmp_path, load=False)


def test_what_begins_while_draining_is_sent_away(tmp_path: Path) -> None:
    async def scenario(service: Service) -> None:
        service.servicer.refuse()
        assert (await service.refusal(request("fake", ROW))).code() is grpc.StatusCode.UNAVAILABLE
        with pytest.raises(grpc.aio.AioRpcError, match="draining"):
            async for _ in service.stub.PredictStream(iter([request("fake", ROW)])):
                pass

    run(scenario, tmp_path)
