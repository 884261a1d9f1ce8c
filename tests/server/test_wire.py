"""Tensors and messages: both encodings, every way to get them wrong, and back."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as stn

from dropserve.v1 import model_pb2, prediction_pb2
from dropserve.v1.tensor_pb2 import Tensor
from dropserve_models.columns import Column
from dropserve_models.prediction import FloatArray, MonteCarloOptions, Prediction
from dropserve_server.errors import InvalidRequest
from dropserve_server.grpc import wire
from dropserve_server.metrics import Metrics
from dropserve_server.predictor import PredictionJob
from dropserve_server.served import ServedModel
from support.fake_model import FakeModel, fake_info

features = stn.arrays(
    np.float32, st.tuples(st.integers(0, 5), st.integers(0, 7)), elements=st.floats(width=32, allow_nan=False)
)


@given(features)
def test_raw_and_values_are_read_alike(array: FloatArray) -> None:
    raw = wire.read_features(Tensor(shape=array.shape, raw=array.astype("<f4").tobytes()))
    assert raw.dtype == np.float32
    assert raw.flags.c_contiguous
    np.testing.assert_array_equal(raw, array)
    values = wire.read_features(Tensor(shape=array.shape, values=array.ravel().tolist()))
    assert values.dtype == np.float32
    np.testing.assert_array_equal(values, array)


def test_raw_bytes_are_not_copied() -> None:
    read = wire.read_features(Tensor(shape=[1, 3], raw=np.ones(3, "<f4").tobytes()))
    assert read.base is not None
    assert not read.flags.owndata
    assert not read.flags.writeable  # it is the message's own bytes


@pytest.mark.parametrize(
    ("tensor", "field", "message"),
    [
        (Tensor(), "inputs.shape", "0 dimensions; it must have two"),
        (Tensor(shape=[3], raw=bytes(12)), "inputs.shape", "1 dimensions"),
        (Tensor(shape=[1, 1, 1], raw=bytes(4)), "inputs.shape", "3 dimensions"),
        (Tensor(shape=[-1, -3], raw=bytes(12)), "inputs.shape", "negative"),
        (Tensor(shape=[2, 3], raw=bytes(23)), "inputs.raw", r"23 bytes; shape \[2, 3\] of .* needs 24"),
        (Tensor(shape=[2, 3]), "inputs.raw", "0 bytes"),
        (Tensor(shape=[2**62, 2**62], raw=bytes(8)), "inputs.shape", r"2\*\*31 or more"),
        (Tensor(shape=[0, 2**62]), "inputs.shape", r"2\*\*31 or more"),
        (Tensor(shape=[2**31 - 1, 2**31 - 1], raw=bytes(8)), "inputs.raw", "8 bytes"),
        (Tensor(shape=[2, 3], values=[1.0] * 5), "inputs.values", r"5 elements; shape \[2, 3\] needs 6"),
        (Tensor(shape=[1, 1], raw=bytes(4), values=[1.0]), "inputs", "both raw and values"),
    ],
)
def test_wrong_tensors_are_refused_with_the_field(tensor: Tensor, field: str, message: str) -> None:
    with pytest.raises(InvalidRequest, match=message) as refusal:
        wire.read_features(tensor)
    assert refusal.value.field == field


def test_monte_carlo_options_and_their_defaults() -> None:
    assert wire.read_monte_carlo(prediction_pb2.MonteCarlo(), 33) == MonteCarloOptions(passes=33)
    message = prediction_pb2.MonteCarlo(
        passes=7, seed=0, quantiles=[0.5, 0.1], return_samples=True, masks=prediction_pb2.MASKS_INDEPENDENT
    )
    assert wire.read_monte_carlo(message, 33) == MonteCarloOptions(7, 0, (0.5, 0.1), True, "independent")
    tolerant = prediction_pb2.MonteCarlo(passes=8, mean_tolerance=0.5, std_tolerance=0.25)
    options = wire.read_monte_carlo(tolerant, 1)
    assert (options.mean_tolerance, options.std_tolerance) == (0.5, 0.25)
    stratified = prediction_pb2.MonteCarlo(masks=prediction_pb2.MASKS_STRATIFIED)
    assert wire.read_monte_carlo(stratified, 1).masks == "stratified"


def test_masks_that_nobody_knows_are_refused() -> None:
    message = prediction_pb2.MonteCarlo.FromString(b"\x28\x63")  # field 5, the value 99
    with pytest.raises(InvalidRequest, match="masks is 99") as refusal:
        wire.read_monte_carlo(message, 1)
    assert refusal.value.field == "monte_carlo.masks"


@pytest.mark.parametrize("request_id", ["", "x" * 256, "é" * 128])
def test_request_ids_of_up_to_256_bytes_pass(request_id: str) -> None:
    wire.check_request_id(request_id)


@pytest.mark.parametrize("request_id", ["x" * 257, "é" * 129])
def test_longer_request_ids_are_refused(request_id: str) -> None:
    with pytest.raises(InvalidRequest, match="256 bytes") as refusal:
        wire.check_request_id(request_id)
    assert refusal.value.field == "request_id"


def answer(prediction: Prediction, options: MonteCarloOptions | None) -> prediction_pb2.PredictResponse:
    served = ServedModel(FakeModel(fake_info("m", 3)), Metrics().of_model("m", "3"))

    async def make() -> prediction_pb2.PredictResponse:
        job = PredictionJob(served, np.zeros((2, 3), np.float32), options, float("inf"))
        job.begun, job.finished = job.queued + 1, job.queued + 3
        job.result = prediction
        return wire.write_answer("id", job)

    return asyncio.run(make())


def array_of(tensor: Tensor) -> FloatArray:
    assert not tensor.values
    return np.frombuffer(tensor.raw, "<f4").reshape(tuple(tensor.shape))


def test_a_deterministic_answer_has_nothing_of_the_other_mode() -> None:
    mean = np.arange(4, dtype=np.float32).reshape(2, 2)
    response = answer(Prediction(mean, aleatoric_variance=mean + 1), None)
    assert (response.model, response.version, response.request_id, response.passes) == ("m", "3", "id", 0)
    assert response.timings.queue_seconds == pytest.approx(1)
    assert response.timings.compute_seconds == pytest.approx(2)
    np.testing.assert_array_equal(array_of(response.mean), mean)
    np.testing.assert_array_equal(array_of(response.aleatoric_variance), mean + 1)
    assert {field.name for field, _ in response.ListFields()} == {
        "model", "version", "request_id", "mean", "aleatoric_variance", "timings",
    }  # fmt: skip


def test_a_monte_carlo_answer_has_every_array_in_its_place() -> None:
    rng = np.random.default_rng(0)
    shapes = {
        "mean": (2, 2),
        "variance": (2, 2),
        "standard_error": (2, 2),
        "std_standard_error": (2, 2),
        "aleatoric_variance": (2, 2),
        "predictive_entropy": (2,),
        "expected_entropy": (2,),
        "mutual_information": (2,),
        "quantiles": (3, 2, 2),
        "samples": (5, 2, 2),
    }
    arrays: dict[str, Any] = {
        name: rng.standard_normal(shape).astype(np.float32) for name, shape in shapes.items()
    }
    response = answer(Prediction(passes=5, row_passes=np.array([5, 3]), **arrays), MonteCarloOptions(5))
    assert response.passes == 5
    assert list(response.row_passes) == [5, 3]
    for name, array in arrays.items():
        np.testing.assert_array_equal(array_of(getattr(response, name)), array)


def test_arrays_in_other_orders_are_written_row_by_row() -> None:
    mean = np.asfortranarray(np.arange(6, dtype=np.float32).reshape(2, 3))
    np.testing.assert_array_equal(array_of(answer(Prediction(mean), None).mean), mean)


def test_a_model_is_described_in_full() -> None:
    served = ServedModel(FakeModel(fake_info("m", 3), unavailable="no dropout"), Metrics().of_model("m", "3"))
    assert wire.write_model(served, True) == model_pb2.ModelInfo(
        name="m",
        version="3",
        is_default=True,
        task=model_pb2.TASK_REGRESSION,
        feature_names=["a", "b", "c"],
        output_names=["y", "z"],
        drop_rates=[0.5],
        monte_carlo_unavailable="no dropout",
        predicts_noise=False,
        provider="CPUExecutionProvider",
    )


def test_what_columns_hold_is_told() -> None:
    columns = (Column(), Column("number", (), True), Column("category", ("u", "v")))
    served = ServedModel(FakeModel(replace(fake_info("m", 3), columns=columns)), Metrics().of_model("m", "3"))
    assert list(wire.write_model(served, True).columns) == [
        model_pb2.Column(kind=model_pb2.COLUMN_KIND_NUMBER),
        model_pb2.Column(kind=model_pb2.COLUMN_KIND_NUMBER, accepts_missing=True),
        model_pb2.Column(kind=model_pb2.COLUMN_KIND_CATEGORY, categories=["u", "v"]),
    ]
