"""The Open Inference Protocol in this process, behind a real port, with a model that fails as told."""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections.abc import AsyncIterator, Awaitable
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import numpy as np
import pytest

from dropserve.inference import service_pb2 as pb
from dropserve_server.grpc.health import OVERALL
from dropserve_server.grpc.status import INTERNAL_MESSAGE
from dropserve_server.predictor import Predictor
from support.open_inference import arrays_of, infer_request
from support.service import ROW, SECONDS, Service, cancelled, outcome, run


async def refusal(call: Awaitable[object]) -> grpc.aio.AioRpcError:
    with pytest.raises(grpc.aio.AioRpcError) as error:
        await call
    return error.value


def test_a_bug_is_internal_to_the_caller_and_a_trace_in_the_log(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async def scenario(service: Service) -> None:
        service.model.error = ZeroDivisionError("the secret of the model")
        request = infer_request("fake", ROW, id="r-9")
        error = await refusal(service.open_inference.ModelInfer(request))
        assert (error.code(), error.details()) == (grpc.StatusCode.INTERNAL, INTERNAL_MESSAGE)
        (answer,) = [a async for a in service.open_inference.ModelStreamInfer(iter([request]))]
        assert answer.error_message == INTERNAL_MESSAGE
        assert answer.infer_response.id == "r-9"
        assert answer.infer_response.parameters["triton_final_response"].bool_param

    run(scenario, tmp_path)
    records = [record for record in caplog.records if record.getMessage() == "request failed"]
    assert len(records) == 2
    for record in records:
        assert record.levelno == logging.ERROR
        assert record.exc_info
        assert vars(record)["request_id"] == "r-9"


def test_work_cancelled_on_our_side_still_gets_the_caller_a_status(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A handler that raises CancelledError leaves its caller waiting for ever (grpc#29248)."""

    async def scenario(service: Service) -> None:
        monkeypatch.setattr(Predictor, "predict", cancelled)
        call = service.open_inference.ModelInfer(infer_request("fake", ROW), timeout=SECONDS)
        assert await asyncio.wait_for(outcome(call), SECONDS / 2) is grpc.StatusCode.CANCELLED

    run(scenario, tmp_path)


def test_passes_default_to_the_setting_and_whole_numbers_are_read(tmp_path: Path) -> None:
    async def scenario(service: Service) -> None:
        infer = service.open_inference.ModelInfer
        response = await infer(infer_request("fake", ROW, {"seed": 1}, outputs=("mean", "variance")))
        assert response.parameters["passes"].int64_param == 9
        counts = np.full((1000, 3), 2)
        response = await infer(infer_request("fake", counts, datatype="INT64", raw=False))
        assert arrays_of(response)["mean"].tolist() == [[6.0, 7.0]] * 1000

    run(scenario, tmp_path)


def test_a_timeout_is_kept_while_the_request_waits(tmp_path: Path) -> None:
    """Triton's parameter, in microseconds; clients' own deadlines are gRPC's."""

    async def scenario(service: Service) -> None:
        service.model.gate.clear()
        first = asyncio.ensure_future(outcome(service.open_inference.ModelInfer(infer_request("fake", ROW))))
        await asyncio.to_thread(service.model.entered.acquire)
        hurried = service.open_inference.ModelInfer(infer_request("fake", ROW, {"timeout": 1000}))
        while service.lane.rows < 2:
            await asyncio.sleep(0.001)
        await asyncio.sleep(0.002)
        service.model.gate.set()
        assert await outcome(hurried) is grpc.StatusCode.DEADLINE_EXCEEDED
        assert await first is grpc.StatusCode.OK
        assert len(service.model.calls) == 1

    run(scenario, tmp_path)


def test_what_the_models_refuse_names_the_parameter(tmp_path: Path) -> None:
    async def scenario(service: Service) -> None:
        error = await refusal(service.open_inference.ModelInfer(infer_request("fake", ROW, {"passes": 1001})))
        assert error.code() is grpc.StatusCode.INVALID_ARGUMENT
        assert "passes is 1001" in (error.details() or "")
        details = dict(error.trailing_metadata())["grpc-status-details-bin"]
        assert b"parameters.passes" in details
        error = await refusal(service.open_inference.ModelInfer(infer_request("fake", [[1.0]])))
        details = dict(error.trailing_metadata())["grpc-status-details-bin"]
        assert b"inputs" in details
        assert b"parameters.inputs" not in details

    run(scenario, tmp_path)


def test_answers_on_a_stream_keep_their_order_and_later_ones_are_computed_meanwhile(tmp_path: Path) -> None:
    async def scenario(service: Service) -> None:
        service.model.gate.clear()
        requests = [
            infer_request("fake", ROW, id="slow"),
            infer_request("nothing", ROW, id="unknown"),
            infer_request("fake", ROW, {"passes": 2}, id="bars"),
        ]
        call = service.open_inference.ModelStreamInfer(iter(requests), timeout=SECONDS)
        for _ in range(2):  # both lanes are at work
            await asyncio.to_thread(service.model.entered.acquire)
        service.model.gate.set()
        answers = [answer async for answer in call]
        assert [answer.infer_response.id for answer in answers] == ["slow", "unknown", "bars"]
        assert [bool(answer.error_message) for answer in answers] == [False, True, False]
        assert answers[1].infer_response.model_name == "nothing"
        assert not answers[1].infer_response.outputs
        assert list(arrays_of(answers[2].infer_response))[:2] == ["mean", "variance"]

    run(scenario, tmp_path)


def test_draining_ends_readiness_then_streams_and_requests(tmp_path: Path) -> None:
    async def scenario(service: Service) -> None:
        stub = service.open_inference
        asked = asyncio.Event()

        async def questions() -> AsyncIterator[pb.ModelInferRequest]:
            yield infer_request("fake", ROW, id="read")
            await asked.wait()

        service.model.gate.clear()
        stream = stub.ModelStreamInfer(questions(), timeout=SECONDS)
        await asyncio.to_thread(service.model.entered.acquire)
        service.health.drain()
        assert (await stub.ServerLive(pb.ServerLiveRequest())).live
        assert not (await stub.ServerReady(pb.ServerReadyRequest())).ready
        assert not (await stub.ModelReady(pb.ModelReadyRequest(name="fake"))).ready
        (entry,) = (await stub.RepositoryIndex(pb.RepositoryIndexRequest())).models
        assert (entry.state, entry.reason) == ("UNAVAILABLE", "the server is draining")
        service.open_inference_servicer.close_streams()
        service.model.gate.set()
        answer = await stream.read()
        assert isinstance(answer, pb.ModelStreamInferResponse)
        assert answer.infer_response.id == "read"
        error = await refusal(stream.read())
        assert error.code() is grpc.StatusCode.UNAVAILABLE
        assert "draining" in (error.details() or "")
        asked.set()
        late = stub.ModelStreamInfer(iter([infer_request("fake", ROW)]))
        assert (await refusal(late.read())).code() is grpc.StatusCode.UNAVAILABLE

    run(scenario, tmp_path)


def test_answers_are_kept_back_until_connections_close(tmp_path: Path) -> None:
    async def scenario(service: Service) -> None:
        holding = asyncio.ensure_future(service.calls.hold(0.2, SECONDS))
        await asyncio.sleep(0)
        patient = service.open_inference.ModelInfer(infer_request("fake", ROW), timeout=SECONDS)
        hasty = service.open_inference.ModelInfer(infer_request("fake", ROW, {"timeout": 400_000}))
        assert (await hasty).model_version == "1"  # its deadline comes before ours
        await holding
        assert not patient.done()
        service.calls.release()
        assert (await patient).model_version == "1"

    run(scenario, tmp_path)


def test_before_the_models_are_loaded(tmp_path: Path) -> None:
    async def scenario(service: Service) -> None:
        stub = service.open_inference
        assert (await stub.ServerLive(pb.ServerLiveRequest())).live
        assert not (await stub.ServerReady(pb.ServerReadyRequest())).ready
        assert not (await stub.ModelReady(pb.ModelReadyRequest(name="fake"))).ready
        assert (await stub.ServerMetadata(pb.ServerMetadataRequest())).name == "dropserve"
        for call in (
            stub.ModelInfer(infer_request("fake", ROW)),
            stub.ModelMetadata(pb.ModelMetadataRequest(name="fake")),
            stub.ModelConfig(pb.ModelConfigRequest(name="fake")),
            stub.ModelStatistics(pb.ModelStatisticsRequest(name="fake")),
        ):
            assert await outcome(call) is grpc.StatusCode.UNAVAILABLE
        assert not (await stub.ModelStatistics(pb.ModelStatisticsRequest())).model_stats

    run(scenario, tmp_path, load=False)


def test_a_repository_has_no_name(tmp_path: Path) -> None:
    async def scenario(service: Service) -> None:
        request = pb.RepositoryIndexRequest(repository_name="mine")
        error = await refusal(service.open_inference.RepositoryIndex(request))
        assert error.code() is grpc.StatusCode.INVALID_ARGUMENT

    run(scenario, tmp_path)


def test_a_model_is_described(tmp_path: Path) -> None:
    async def scenario(service: Service) -> None:
        service.model.monte_carlo_unavailable = "no dropout"
        metadata = await service.open_inference.ModelMetadata(pb.ModelMetadataRequest(name="fake"))
        assert {name: json.loads(value) for name, value in metadata.properties.items()} == {
            "task": "regression",
            "feature_names": ["a", "b", "c"],
            "output_names": ["y", "z"],
            "drop_rates": [0.5],
            "error_bar_outputs": [],
            "error_bars_unavailable": "no dropout",
            "interval_outputs": [],
        }
        service.model.monte_carlo_unavailable = None
        metadata = await service.open_inference.ModelMetadata(pb.ModelMetadataRequest(name="fake"))
        assert json.loads(metadata.properties["error_bar_outputs"]) == [
            "variance", "standard_error", "std_standard_error", "quantiles", "samples", "row_passes",
        ]  # fmt: skip
        assert json.loads(metadata.properties["error_bars_unavailable"]) is None

    run(scenario, tmp_path)


def test_statistics_are_of_both_protocols_and_both_modes(tmp_path: Path) -> None:
    async def scenario(service: Service) -> None:
        stub = service.open_inference

        async def statistics() -> Any:
            (entry,) = (await stub.ModelStatistics(pb.ModelStatisticsRequest(name="fake"))).model_stats
            return entry

        empty = await statistics()
        assert empty.last_inference == empty.inference_count == empty.execution_count == 0
        before = int(time.time() * 1000)
        await stub.ModelInfer(infer_request("fake", ROW * 5))
        await stub.ModelInfer(infer_request("fake", ROW * 2, {"passes": 3}))
        await outcome(stub.ModelInfer(infer_request("fake", [[1.0]])))
        await outcome(stub.ModelInfer(infer_request("nothing", ROW)))
        entry = await statistics()
        assert before <= entry.last_inference <= time.time() * 1000
        assert (entry.inference_count, entry.execution_count) == (7, 2)
        stats = entry.inference_stats
        assert (stats.success.count, stats.fail.count) == (2, 1)
        assert stats.queue.count == 2
        assert stats.compute_input.count == stats.compute_infer.count == stats.compute_output.count == 2
        assert 0 < stats.compute_infer.ns + stats.queue.ns < stats.success.ns < SECONDS * 1e9
        assert 0 < stats.fail.ns < SECONDS * 1e9
        value = service.metrics.registry.get_sample_value
        labels = {"model": "fake", "mode": "deterministic"}
        assert value("dropserve_rows_total", labels) == 5
        assert value("dropserve_compute_duration_seconds_count", labels) == 1

    run(scenario, tmp_path)


def test_readiness_is_healths(tmp_path: Path) -> None:
    async def scenario(service: Service) -> None:
        stub = service.open_inference
        assert (await stub.ServerReady(pb.ServerReadyRequest())).ready
        for name, version, ready in (
            ("fake", "", True),
            ("fake", "1", True),
            ("fake", "2", False),
            ("x", "", False),
        ):
            request = pb.ModelReadyRequest(name=name, version=version)
            assert (await stub.ModelReady(request)).ready is ready
        service.health.set("fake", False)
        assert not (await stub.ModelReady(pb.ModelReadyRequest(name="fake"))).ready
        service.health.set(OVERALL, False)
        assert not (await stub.ServerReady(pb.ServerReadyRequest())).ready
        for name, version in (("fake", "latest"), ("", "")):
            error = await refusal(stub.ModelReady(pb.ModelReadyRequest(name=name, version=version)))
            assert error.code() is grpc.StatusCode.INVALID_ARGUMENT

    run(scenario, tmp_path)
