"""From a table to calibrated intervals: trained, served, and asked over every protocol and by the SDK."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import grpc
import numpy as np
import pytest

from dropserve.inference.service_pb2 import ModelMetadataRequest
from dropserve.inference.service_pb2_grpc import GRPCInferenceServiceStub
from dropserve.v1.prediction_pb2 import MonteCarlo
from dropserve_client import AsyncClient, Client, InputError, IntervalUnavailable
from dropserve_models import load
from dropserve_models.training.config import TrainingConfig
from dropserve_models.training.job import Job, Outcome
from dropserve_models.training.trainer import train
from support.open_inference import arrays_of, infer_request
from support.prediction_client import Asker, array_of, request
from support.server_process import ServerProcess, server_process

Trained = dict[str, Outcome]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Trained:
    repository = tmp_path_factory.mktemp("calibrated")
    recipes = {
        "diabetes": ("sklearn:diabetes", 0.3),
        "wine": ("sklearn:wine", "cv"),
        "plain": ("sklearn:wine", "none"),
    }
    return {
        name: train(
            Job(
                data,
                name,
                repository,
                config=TrainingConfig.from_mapping(
                    {"hidden": (16,), "epochs": 10, "calibration": calibration}
                ),
            )
        )
        for name, (data, calibration) in recipes.items()
    }


@pytest.fixture(scope="module")
def calibrated_server(trained: Trained) -> Iterator[ServerProcess]:
    with server_process(trained["wine"].folder.parent.parent) as process:
        yield process


@pytest.fixture(scope="module")
def asker(calibrated_server: ServerProcess) -> Iterator[Asker]:
    with grpc.insecure_channel(calibrated_server.address) as channel:
        yield Asker(channel)


@pytest.mark.parametrize("monte_carlo", [None, MonteCarlo(passes=30, seed=3)])
def test_intervals_over_the_wire_are_those_of_the_library(
    asker: Asker, trained: Trained, monte_carlo: MonteCarlo | None
) -> None:
    X = trained["diabetes"].table.features[:50]
    answer = asker.predict("diabetes", X, monte_carlo, interval=0.9)
    options: Any = {} if monte_carlo is None else {"passes": 30, "seed": 3}
    expected: Any = load(trained["diabetes"].folder, device="cpu").predict(X, interval=0.9, **options)
    np.testing.assert_allclose(array_of(answer.interval_lower), expected.interval_lower, rtol=1e-4)
    np.testing.assert_allclose(array_of(answer.interval_upper), expected.interval_upper, rtol=1e-4)
    assert not answer.HasField("prediction_set")


def test_sets_over_the_wire_are_those_of_the_library(asker: Asker, trained: Trained) -> None:
    X = trained["wine"].table.features
    answer = asker.predict("wine", X, interval=0.95)
    expected: Any = load(trained["wine"].folder, device="cpu").predict(X, interval=0.95)
    np.testing.assert_array_equal(array_of(answer.prediction_set), expected.prediction_set)
    assert not answer.HasField("interval_lower")


def test_the_sdk_and_open_inference_say_the_same(calibrated_server: ServerProcess, trained: Trained) -> None:
    X = trained["diabetes"].table.features

    async def awaited() -> Any:
        async with AsyncClient(calibrated_server.address, request_rows=100) as client:
            return (await client.predict("diabetes", X, interval=0.8)).interval_upper

    with Client(calibrated_server.address) as client:
        whole = client.predict("diabetes", X, interval=0.8)
        assert client.get_model("diabetes").calibrated
        assert not client.get_model("plain").calibrated
    assert whole.interval_upper is not None
    np.testing.assert_allclose(asyncio.run(awaited()), whole.interval_upper, rtol=1e-5)
    with grpc.insecure_channel(calibrated_server.address) as channel:
        stub = GRPCInferenceServiceStub(channel)
        found = arrays_of(stub.ModelInfer(infer_request("diabetes", X, {"interval": 0.8}), timeout=60))
        sets = arrays_of(
            stub.ModelInfer(
                infer_request("wine", trained["wine"].table.features, {"interval": 0.8, "passes": 20}),
                timeout=60,
            )
        )
        metadata = stub.ModelMetadata(ModelMetadataRequest(name="wine"), timeout=60)
    np.testing.assert_allclose(found["interval_upper"], whole.interval_upper, rtol=1e-5)
    assert sets["prediction_set"].shape == (178, 3)
    assert sets["prediction_set"].sum(axis=1).min() >= 1
    assert metadata.properties["interval_outputs"] == '["prediction_set"]'


def test_a_large_request_is_cut_and_joined_with_its_interval(asker: Asker, trained: Trained) -> None:
    X = np.tile(trained["diabetes"].table.features, (30, 1))
    options = MonteCarlo(passes=50, seed=1)
    asker.predict("diabetes", X[:442], options)  # so that the server knows what rows cost
    answer = asker.predict("diabetes", X, options, interval=0.9)
    lower = array_of(answer.interval_lower)
    assert lower.shape == (30 * 442, 1)
    np.testing.assert_allclose(lower[:442], lower[-442:], rtol=1e-4)


def test_refusals_name_the_field(asker: Asker, calibrated_server: ServerProcess, trained: Trained) -> None:
    X = trained["wine"].table.features[:2]
    for interval in (1.0, -1.0, float("nan"), 0.999):
        refusal = asker.refused(request("wine", X, interval=interval))
        assert (refusal.code, refusal.fields) == (grpc.StatusCode.INVALID_ARGUMENT, ("interval",))
    refusal = asker.refused(request("plain", X, interval=0.9))
    assert (refusal.code, refusal.fields) == (grpc.StatusCode.FAILED_PRECONDITION, ("interval",))
    assert "--calibration" in refusal.message
    with Client(calibrated_server.address) as client:
        with pytest.raises(IntervalUnavailable, match="'plain' can't answer with intervals"):
            client.predict("plain", X, interval=0.9)
        with pytest.raises(InputError, match="calibrated on 178 rows"):
            client.predict("wine", X, interval=0.999)
