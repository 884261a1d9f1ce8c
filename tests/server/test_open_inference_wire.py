"""Requests to arrays and predictions to answers: every encoding, and every way to get it wrong."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from google.protobuf.message import DecodeError
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as stn

from dropserve.inference.service_pb2 import ModelInferRequest
from dropserve_models.prediction import FloatArray, ModelInfo, MonteCarloOptions, Prediction
from dropserve_server.errors import InvalidRequest
from dropserve_server.grpc import open_inference_wire as wire
from dropserve_server.grpc.open_inference_parameters import read_options, read_seconds
from dropserve_server.metrics import Metrics
from dropserve_server.predictor import PredictionJob
from dropserve_server.served import ServedModel
from support.fake_model import FAKE_INFO, FakeModel, fake_info
from support.open_inference import CONTENTS, DTYPES, Input, Output, arrays_of, infer_request

arrays = stn.arrays(
    np.float32, st.tuples(st.integers(1, 5), st.integers(1, 7)), elements=st.floats(width=32, allow_nan=False)
)
ROWS = np.array([[0, 1, 2], [3, 4, 100]])
CLASSIFIER = replace(FAKE_INFO, task="multiclass")
NOISY = replace(FAKE_INFO, predicts_noise=True)


@given(arrays)
def test_raw_and_typed_floats_are_read_alike(array: FloatArray) -> None:
    for raw in (True, False):
        read = wire.read_features(infer_request("m", array, raw=raw))
        assert read.dtype == np.float32
        np.testing.assert_array_equal(read, array)


@pytest.mark.parametrize(
    ("datatype", "raw"), [*((name, True) for name in DTYPES), *((name, False) for name in CONTENTS)]
)
def test_every_numeric_datatype_becomes_float32(datatype: str, raw: bool) -> None:
    read = wire.read_features(infer_request("m", ROWS, datatype=datatype, raw=raw))
    assert read.dtype == np.float32
    assert read.flags.c_contiguous
    np.testing.assert_array_equal(read, ROWS)


def test_raw_float32_is_not_copied() -> None:
    read = wire.read_features(infer_request("m", ROWS))
    assert not read.flags.owndata
    assert not read.flags.writeable  # it is the message's own bytes


def test_infinities_and_nan_are_left_to_the_check_that_names_them() -> None:
    rows = np.array([[np.inf, -np.inf, np.nan]])
    for datatype in ("FP32", "FP64", "FP16"):
        np.testing.assert_array_equal(wire.read_features(infer_request("m", rows, datatype=datatype)), rows)


def change(build: Callable[[ModelInferRequest], object], **options: Any) -> ModelInferRequest:
    request = infer_request("m", ROWS, **options)
    build(request)
    return request


@pytest.mark.parametrize(
    ("request_", "field", "words"),
    [
        (ModelInferRequest(), "inputs", "the inputs are none; every model here takes one, 'features'"),
        (change(lambda r: r.inputs.append(Input(name="b"))), "inputs", "'features', 'b'"),
        (change(lambda r: setattr(r.inputs[0], "name", "x")), "inputs", "'x'"),
        (change(lambda r: r.inputs[0].shape.append(1)), "inputs.shape", "3 dimensions"),
        (change(lambda r: r.inputs[0].ClearField("shape")), "inputs.shape", "0 dimensions"),
        (change(lambda r: r.inputs[0].shape.__setitem__(0, -2)), "inputs.shape", "negative"),
        (change(lambda r: r.inputs[0].shape.__setitem__(0, 2**31)), "inputs.shape", "or more"),
        (change(lambda r: setattr(r.inputs[0], "datatype", "BYTES")), "inputs.datatype", "'BYTES'"),
        (change(lambda r: setattr(r.inputs[0], "datatype", "")), "inputs.datatype", "must be FP32"),
        (change(lambda r: r.inputs[0].shape.__setitem__(0, 3)), "raw_input_contents", "24 bytes.*needs 36"),
        (change(lambda r: setattr(r.inputs[0], "datatype", "FP64")), "raw_input_contents", "needs 48"),
        (change(lambda r: r.raw_input_contents.append(b"")), "raw_input_contents", "2 raw_input_contents"),
        (change(lambda r: r.ClearField("raw_input_contents")), "inputs.contents.fp32_contents", "0 elements"),
        (
            change(lambda r: r.inputs[0].contents.fp32_contents.append(1.0)),
            "inputs.contents", "both contents and raw_input_contents",
        ),
        (
            change(lambda r: r.inputs[0].contents.fp32_contents.append(1.0), raw=False),
            "inputs.contents.fp32_contents", r"7 elements; shape \[2, 3\] needs 6",
        ),
        (
            change(lambda r: setattr(r.inputs[0], "datatype", "FP64"), raw=False),
            "inputs.contents.fp32_contents", "those of FP64 go into fp64_contents",
        ),
        (
            change(lambda r: setattr(r.inputs[0], "datatype", "FP16"), raw=False),
            "inputs.contents", "raw_input_contents only",
        ),
        (
            change(lambda r: r.inputs[0].parameters["shared_memory_region"].MergeFromString(b"")),
            "inputs.parameters", "no shared memory",
        ),
        (infer_request("m", [[1.0, -1e39]], datatype="FP64"), "inputs", "holds -1e[+]39, beyond float32"),
    ],
)  # fmt: skip
def test_wrong_inputs_are_refused_with_the_field(request_: ModelInferRequest, field: str, words: str) -> None:
    with pytest.raises(InvalidRequest, match=words) as refusal:
        wire.read_features(request_)
    assert refusal.value.field == field


REQUESTS = [
    infer_request(
        "m", ROWS, {"passes": 5, "seed": "7", "quantiles": "0.1,0.9", "timeout": 5},
        datatype=datatype, raw=raw, outputs=("mean", "variance"),
    ).SerializeToString()
    for datatype in CONTENTS for raw in (True, False)
]  # fmt: skip


@settings(max_examples=300)
@given(
    st.sampled_from(REQUESTS),
    st.lists(st.tuples(st.integers(0, 2**16), st.integers(0, 255)), min_size=1, max_size=4),
)
def test_a_damaged_request_is_read_or_refused(whole: bytes, damages: list[tuple[int, int]]) -> None:
    damaged = bytearray(whole)
    for position, byte in damages:
        damaged[position % len(whole)] = byte
    try:
        request = ModelInferRequest.FromString(bytes(damaged))
    except DecodeError:
        return  # gRPC refuses it
    refusal = None
    try:
        options = read_options(request.parameters, 50)
        wire.read_outputs(request, FAKE_INFO, options)
        assert wire.read_features(request).dtype == np.float32
        read_seconds(request.parameters, None)
    except InvalidRequest as error:
        refusal = error
    assert refusal is None or (refusal.field and len(str(refusal)) < 1000)


@pytest.mark.parametrize(
    ("request_", "quick"),
    [
        (ModelInferRequest(), True),
        (infer_request("m", np.zeros((100, 3))), True),
        (infer_request("m", np.zeros((100, 3)), datatype="FP64"), False),
        (infer_request("m", np.zeros((5, 3)), datatype="FP64"), True),
        (infer_request("m", np.zeros((100, 3)), raw=False), False),
        (infer_request("m", np.zeros((5, 3)), raw=False), True),
    ],
)
def test_what_takes_long_to_read_is_known_beforehand(request_: ModelInferRequest, quick: bool) -> None:
    assert wire.is_quickly_read(request_, 100) is quick


@pytest.mark.parametrize(
    ("info", "options", "names"),
    [
        (FAKE_INFO, None, ["mean"]),
        (NOISY, None, ["mean", "aleatoric_variance"]),
        (FAKE_INFO, MonteCarloOptions(1), ["mean", "variance"]),
        (FAKE_INFO, MonteCarloOptions(2), ["mean", "variance", "standard_error", "std_standard_error"]),
        (
            CLASSIFIER, MonteCarloOptions(1, quantiles=(0.5,), return_samples=True),
            ["mean", "variance", "predictive_entropy", "expected_entropy", "mutual_information", "quantiles",
             "samples"],
        ),
        (NOISY, MonteCarloOptions(1, mean_tolerance=0.1),
         ["mean", "aleatoric_variance", "variance", "row_passes"]),
    ],
)  # fmt: skip
def test_a_request_gets_the_outputs_of_its_parameters(
    info: ModelInfo, options: MonteCarloOptions | None, names: list[str]
) -> None:
    assert wire.outputs_of(info, options) == names
    assert wire.read_outputs(ModelInferRequest(), info, options) == names


def wanting(*names: str) -> ModelInferRequest:
    return ModelInferRequest(outputs=[Output(name=name) for name in names])


def test_wanted_outputs_come_once_and_in_their_order() -> None:
    wanted = wire.read_outputs(wanting("variance", "mean", "variance"), FAKE_INFO, MonteCarloOptions(1))
    assert wanted == ["variance", "mean"]


def test_outputs_that_the_request_does_not_give_are_refused() -> None:
    with pytest.raises(InvalidRequest, match=r"no output 'y'; its outputs are mean; .* parameter passes"):
        wire.read_outputs(wanting("mean", "y"), FAKE_INFO, None)
    with pytest.raises(InvalidRequest, match=r"its outputs are mean, variance$") as refusal:
        wire.read_outputs(wanting("quantiles"), FAKE_INFO, MonteCarloOptions(1))
    assert refusal.value.field == "outputs"


@pytest.mark.parametrize("extension", ["classification", "shared_memory_region"])
def test_extensions_that_are_not_there_are_refused(extension: str) -> None:
    request = wanting("mean")
    request.outputs[0].parameters[extension].int64_param = 2
    with pytest.raises(InvalidRequest, match=extension) as refusal:
        wire.read_outputs(request, FAKE_INFO, None)
    assert refusal.value.field == "outputs.parameters"


def job(prediction: Prediction, options: MonteCarloOptions | None) -> PredictionJob:
    served = ServedModel(FakeModel(fake_info("m", 3)), Metrics().of_model("m", "3"))

    async def make() -> PredictionJob:
        job = PredictionJob(served, np.zeros((2, 3), np.float32), options, float("inf"))
        job.result = prediction
        return job

    return asyncio.run(make())


def test_an_answer_carries_the_outputs_asked_for_as_raw_bytes() -> None:
    rng = np.random.default_rng(0)
    mean, samples = rng.standard_normal((2, 2), np.float32), rng.standard_normal((5, 2, 2), np.float32)
    prediction = Prediction(np.asfortranarray(mean), passes=5, samples=samples, row_passes=np.array([5, 3]))
    response = wire.write_answer(
        "id", job(prediction, MonteCarloOptions(5)), ["samples", "mean", "row_passes"]
    )
    assert (response.model_name, response.model_version, response.id) == ("m", "3", "id")
    assert {name: p.int64_param for name, p in response.parameters.items()} == {"passes": 5}
    answer = arrays_of(response)
    assert list(answer) == ["samples", "mean", "row_passes"]
    np.testing.assert_array_equal(answer["mean"], mean)
    np.testing.assert_array_equal(answer["samples"], samples)
    assert answer["row_passes"].tolist() == [5, 3]
    assert [output.datatype for output in response.outputs] == ["FP32", "FP32", "INT64"]
    assert not any(output.HasField("contents") for output in response.outputs)


def test_a_deterministic_answer_has_no_parameters() -> None:
    response = wire.write_answer("", job(Prediction(np.zeros((2, 2), np.float32)), None), ["mean"])
    assert not response.parameters
    assert not response.id
