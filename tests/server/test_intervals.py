"""Intervals through both protocols, with a fake that is calibrated for deterministic requests up to .9."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import numpy as np
import pytest

from dropserve.inference.service_pb2 import ModelMetadataRequest
from dropserve.v1.prediction_pb2 import MonteCarlo, PredictResponse
from support.fake_model import FAKE_INFO
from support.open_inference import arrays_of, infer_request
from support.prediction_client import array_of, refusal_of, request
from support.service import ROW, SECONDS, Service, run

REFUSED = [
    (0.95, None, grpc.StatusCode.INVALID_ARGUMENT),
    (1.0, None, grpc.StatusCode.INVALID_ARGUMENT),
    (-0.1, None, grpc.StatusCode.INVALID_ARGUMENT),
    (float("nan"), None, grpc.StatusCode.INVALID_ARGUMENT),
    (0.9, MonteCarlo(passes=2), grpc.StatusCode.FAILED_PRECONDITION),
]


def check(answer: PredictResponse, half: float) -> None:
    mean = array_of(answer.mean)
    np.testing.assert_allclose(array_of(answer.interval_lower), mean - half)
    np.testing.assert_allclose(array_of(answer.interval_upper), mean + half)
    assert not answer.HasField("prediction_set")


def test_an_interval_comes_where_one_is_asked_for(tmp_path: Path) -> None:
    async def scenario(service: Service) -> None:
        check(await service.stub.Predict(request("fake", ROW, interval=0.5)), 5.0)
        plain = await service.stub.Predict(request("fake", ROW))
        assert not plain.HasField("interval_lower")
        assert not plain.HasField("interval_upper")

    run(scenario, tmp_path)


def test_a_stream_gives_each_request_its_own_coverage(tmp_path: Path) -> None:
    async def scenario(service: Service) -> None:
        coverages = {"a": 0.25, "b": 0.5, "c": 0.95}
        questions = [request("fake", ROW, request_id=name, interval=c) for name, c in coverages.items()]
        answers = {answer.request_id: answer async for answer in service.stub.PredictStream(iter(questions))}
        check(answers["a"], 2.5)
        check(answers["b"], 5.0)
        assert answers["c"].error.code == grpc.StatusCode.INVALID_ARGUMENT.value[0]
        assert answers["c"].error.field == "interval"

    run(scenario, tmp_path)


@pytest.mark.parametrize(("interval", "monte_carlo", "code"), REFUSED)
def test_what_can_not_be_answered_is_refused_before_it_is_computed(
    tmp_path: Path, interval: float, monte_carlo: MonteCarlo | None, code: grpc.StatusCode
) -> None:
    async def scenario(service: Service) -> None:
        before = len(service.model.calls)
        error = refusal_of(await service.refusal(request("fake", ROW, monte_carlo, interval=interval)))
        assert (error.code, error.fields) == (code, ("interval",))
        assert len(service.model.calls) == before

    run(scenario, tmp_path)


def test_open_inference_has_intervals_as_outputs(tmp_path: Path) -> None:
    async def scenario(service: Service) -> None:
        for value in (0.5, "0.5"):
            answer = await service.open_inference.ModelInfer(infer_request("fake", ROW, {"interval": value}))
            found = arrays_of(answer)
            assert list(found) == ["mean", "interval_lower", "interval_upper"]
            np.testing.assert_allclose(found["interval_upper"] - found["interval_lower"], [[10.0, 10.0]])
        chosen = infer_request("fake", ROW, {"interval": 0.5}, outputs=("interval_upper",))
        assert list(arrays_of(await service.open_inference.ModelInfer(chosen))) == ["interval_upper"]

    run(scenario, tmp_path)


@pytest.mark.parametrize(
    ("parameters", "outputs", "code", "message"),
    [
        ({"interval": 0.95}, (), grpc.StatusCode.INVALID_ARGUMENT, "at most 0.9"),
        ({"interval": 0}, (), grpc.StatusCode.INVALID_ARGUMENT, "a coverage above 0 and below 1"),
        ({"interval": "wide"}, (), grpc.StatusCode.INVALID_ARGUMENT, "a number"),
        ({"interval": True}, (), grpc.StatusCode.INVALID_ARGUMENT, "a number"),
        ({"interval": 0.5, "passes": 3}, (), grpc.StatusCode.FAILED_PRECONDITION, "deterministic requests"),
        ({}, ("interval_lower",), grpc.StatusCode.INVALID_ARGUMENT, "its outputs are mean"),
        ({"interval": 0.5}, ("prediction_set",), grpc.StatusCode.INVALID_ARGUMENT, "interval_lower"),
    ],
)
def test_open_inference_refuses_the_same(
    tmp_path: Path, parameters: dict[str, Any], outputs: tuple[str, ...], code: grpc.StatusCode, message: str
) -> None:
    async def scenario(service: Service) -> None:
        call = service.open_inference.ModelInfer(
            infer_request("fake", ROW, parameters, outputs=outputs), timeout=SECONDS
        )
        with pytest.raises(grpc.aio.AioRpcError, match=message) as error:
            await call
        assert error.value.code() is code

    run(scenario, tmp_path)


def test_open_inference_tells_which_models_have_intervals(tmp_path: Path) -> None:
    async def scenario(service: Service) -> None:
        metadata = await service.open_inference.ModelMetadata(ModelMetadataRequest(name="fake"))
        assert metadata.properties["interval_outputs"] == "[]"
        assert not FAKE_INFO.calibrated

    run(scenario, tmp_path)
