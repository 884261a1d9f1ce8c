"""PredictionService in this process, behind a real port, with a model that fails as told."""

from __future__ import annotations

import asyncio
import logging
from pathlib import Path

import grpc
import grpc.aio
import pytest

from dropserve.v1 import prediction_pb2
from dropserve.v1.prediction_pb2 import MonteCarlo
from dropserve_models.errors import InputError
from dropserve_server.grpc.status import INTERNAL_MESSAGE
from dropserve_server.predictor import Predictor
from support.prediction_client import array_of, request
from support.service import ROW, SECONDS, Service, cancelled, outcome, run


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


def test_work_cancelled_on_our_side_still_gets_the_caller_a_status(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A handler that raises CancelledError leaves its caller waiting for ever (grpc#29248)."""

    async def scenario(service: Service) -> None:
        monkeypatch.setattr(Predictor, "predict", cancelled)
        call = service.stub.Predict(request("fake", ROW), timeout=SECONDS)
        assert await asyncio.wait_for(outcome(call), SECONDS / 2) is grpc.StatusCode.CANCELLED

    run(scenario, tmp_path)


def test_a_caller_that_leaves_frees_its_place(tmp_path: Path) -> None:
    async def scenario(service: Service) -> None:
        service.model.gate.clear()
        first = asyncio.ensure_future(outcome(service.stub.Predict(request("fake", ROW))))
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
            assert await outcome(call) is grpc.StatusCode.UNAVAILABLE

    run(scenario, tmp_path, load=False)


def test_answers_are_held_back_until_no_request_comes_any_more(tmp_path: Path) -> None:
    async def scenario(service: Service) -> None:
        holding = asyncio.ensure_future(service.calls.hold(0.2, SECONDS))
        await asyncio.sleep(0)
        patient = service.stub.Predict(request("fake", ROW), timeout=SECONDS)
        hasty = service.stub.Predict(request("fake", ROW), timeout=0.4)
        assert (await hasty).version == "1"  # its deadline comes before ours
        await holding
        assert not patient.done()
        assert service.metrics.inflight == 1
        service.calls.release()
        assert (await patient).version == "1"

    run(scenario, tmp_path)


def test_streams_that_begin_while_connections_are_closed_are_sent_away(tmp_path: Path) -> None:
    async def scenario(service: Service) -> None:
        service.servicer.close_streams()
        with pytest.raises(grpc.aio.AioRpcError, match="draining"):
            async for _ in service.stub.PredictStream(iter([request("fake", ROW)])):
                pass

    run(scenario, tmp_path)
