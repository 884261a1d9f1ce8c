"""Every status that a caller can get, with its details, from the real server."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import grpc
import numpy as np
import pytest

from dropserve.v1 import prediction_pb2
from dropserve.v1.prediction_pb2 import MonteCarlo, PredictRequest
from dropserve.v1.tensor_pb2 import Tensor
from support.example_repository import rows_for
from support.prediction_client import Asker, request, tensor
from support.server_process import ServerProcess, server_process

FOUR = rows_for("targets", 2)


def infinite() -> Tensor:
    rows = FOUR.copy()
    rows[1, 2] = np.inf
    return tensor(rows)


@pytest.mark.parametrize(
    ("message", "field", "words"),
    [
        (request("targets", rows_for("binary", 1)), "inputs", "takes 4 features a row; inputs has 5"),
        (request("targets", np.zeros((0, 4))), "inputs", "no rows"),
        (request("targets", infinite()), "inputs", "inputs[1, 2] (feature_2) is inf"),
        (request("targets", Tensor(shape=[4], raw=bytes(16))), "inputs.shape", "must have two"),
        (request("targets", Tensor(shape=[2, 4], raw=bytes(31))), "inputs.raw", "31 bytes"),
        (request("targets", Tensor(shape=[2, 4], values=[0.0])), "inputs.values", "1 elements"),
        (request("targets", Tensor(shape=[1, 4], raw=bytes(16), values=[0.0] * 4)), "inputs", "both"),
        (PredictRequest(model="targets"), "inputs.shape", "0 dimensions"),
        (PredictRequest(), "model", "no model is named"),
        (request("targets", FOUR, version="newest"), "version", "'newest' is not a positive integer"),
        (request("targets", FOUR, request_id="x" * 257), "request_id", "256 bytes"),
        (request("targets", FOUR, MonteCarlo(passes=5001)), "monte_carlo.passes", "at most 5000"),
        (request("targets", FOUR, MonteCarlo(quantiles=[0.5, 1.5])), "monte_carlo.quantiles", "1.5"),
        (request("targets", FOUR, MonteCarlo(quantiles=[float("nan")])), "monte_carlo.quantiles", "nan"),
        (request("targets", FOUR, MonteCarlo(quantiles=[0.5] * 65)), "monte_carlo.quantiles", "64"),
        (request("targets", FOUR, MonteCarlo.FromString(b"\x28\x09")), "monte_carlo.masks", "masks is 9"),
    ],
)
def test_invalid_argument_names_the_field(
    ask: Asker, message: PredictRequest, field: str, words: str
) -> None:
    refusal = ask.refused(message)
    assert refusal.code is grpc.StatusCode.INVALID_ARGUMENT
    assert words in refusal.message
    assert refusal.fields == (field,)


@pytest.mark.parametrize(
    ("message", "words"),
    [
        (
            request("nothing", FOUR),
            "there is no model 'nothing'; served: binary, classes, plain, targets, wave",
        ),
        (request("targets", FOUR, version="7"), "'targets' has no version 7 here; served: 1, 2"),
        (request("damaged", FOUR), "'damaged' could not be loaded"),
        (request("../targets", FOUR), "there is no model '../targets'"),
    ],
)
def test_not_found_names_what_there_is(ask: Asker, message: PredictRequest, words: str) -> None:
    refusal = ask.refused(message)
    assert refusal.code is grpc.StatusCode.NOT_FOUND
    assert words in refusal.message
    assert refusal.fields == ()


@pytest.mark.parametrize(
    ("name", "version", "code"),
    [("nothing", "", "NOT_FOUND"), ("targets", "7", "NOT_FOUND"), ("targets", "x", "INVALID_ARGUMENT")],
)
def test_get_model_refuses_alike(ask: Asker, name: str, version: str, code: str) -> None:
    with pytest.raises(grpc.RpcError) as refusal:
        ask.stub.GetModel(prediction_pb2.GetModelRequest(name=name, version=version), timeout=60)
    assert refusal.value.code().name == code


@pytest.fixture(scope="module")
def narrow(repository: Path) -> Iterator[ServerProcess]:
    """A server with low limits."""
    limits = {"rows": 3000, "memory-bytes": 2**20, "message-bytes": 2**20}
    options = [text for name, value in limits.items() for text in (f"--max-{name}", str(value))]
    with server_process(repository, *options) as process:
        yield process


@pytest.mark.parametrize(
    ("message", "words", "reason"),
    [
        (request("targets", rows_for("targets", 3001)), "3001 rows are over the limit of 3000", "rows"),
        (
            request("targets", rows_for("targets", 3000), MonteCarlo(passes=100, return_samples=True)),
            "over the limit of 1044480 a message",
            "answer",
        ),
        (
            request("classes", rows_for("classes", 2), MonteCarlo(passes=10_000, quantiles=[0.5] * 64)),
            "a request may use 1,048,576",
            "memory",
        ),
    ],
)
def test_resource_exhausted_names_the_limit(
    narrow: ServerProcess, message: PredictRequest, words: str, reason: str
) -> None:
    with grpc.insecure_channel(narrow.address) as channel:
        refusal = Asker(channel).refused(message)
    assert refusal.code is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert words in refusal.message
    series = f'dropserve_rejected_total{{model="{message.model}",reason="{reason}"}}'
    assert narrow.scrape()[series] == 1


def test_a_message_over_the_limit_is_refused_and_the_connection_lives_on(narrow: ServerProcess) -> None:
    with grpc.insecure_channel(narrow.address) as channel:
        ask = Asker(channel)
        refusal = ask.refused(request("targets", Tensor(shape=[1, 4], raw=bytes(2**20 + 1))))
        assert refusal.code is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert ask.predict("targets", FOUR).mean.shape == [2, 2]


def test_failures_are_logged_with_the_request_id_in_one_line_each(ask: Asker, server: ServerProcess) -> None:
    hostile = 'bad"\n{"event": "forged"}'
    ask.refused(request("targets", infinite(), request_id=hostile))
    event = server.wait_for("request failed", request_id=hostile)
    assert event["code"] == "INVALID_ARGUMENT"
    assert (event["model"], event["version"], event["field"]) == ("targets", "2", "inputs")
    assert "feature_2" in event["reason"]
    assert not any(line["event"] == "forged" for line in server.log)
    assert server.other_lines == []


def test_an_unknown_method_is_unimplemented(ask: Asker) -> None:
    call: grpc.UnaryUnaryMultiCallable[bytes, bytes] = ask.channel.unary_unary(
        "/dropserve.v1.PredictionService/Explain"
    )
    with pytest.raises(grpc.RpcError) as refusal:
        call(b"", timeout=60)
    assert refusal.value.code() is grpc.StatusCode.UNIMPLEMENTED


@pytest.mark.parametrize(
    "method",
    [
        "/dropserve.v1.PredictionService/Predict",
        "/dropserve.v1.PredictionService/GetModel",
        "/dropserve.v1.PredictionService/ListModels",
        "/grpc.health.v1.Health/Check",
    ],
)
def test_what_cant_be_decoded_is_the_callers_doing(ask: Asker, server: ServerProcess, method: str) -> None:
    call: grpc.UnaryUnaryMultiCallable[bytes, bytes] = ask.channel.unary_unary(method)
    with pytest.raises(grpc.RpcError) as refusal:
        call(b"\xff\xff\xff", timeout=60)
    assert refusal.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert "can't be decoded" in str(refusal.value.details())
    assert not any("DecodeError" in str(line) for line in server.log)


def test_a_stream_ends_with_what_cant_be_decoded_and_answers_what_came_before(ask: Asker) -> None:
    good = [request("targets", FOUR, request_id=str(number)).SerializeToString() for number in range(3)]
    call: grpc.StreamStreamMultiCallable[bytes, bytes] = ask.channel.stream_stream(
        "/dropserve.v1.PredictionService/PredictStream"
    )
    answers = call(iter([*good, b"\xff\xff\xff", good[0]]), timeout=60)
    answered = {prediction_pb2.PredictResponse.FromString(next(answers)).request_id for _ in good}
    assert answered == {"0", "1", "2"}
    with pytest.raises(grpc.RpcError) as refusal:
        next(answers)
    assert refusal.value.code() is grpc.StatusCode.INVALID_ARGUMENT


def test_what_cant_be_decoded_ends_reflection_with_a_status(ask: Asker) -> None:
    call: grpc.StreamStreamMultiCallable[bytes, bytes] = ask.channel.stream_stream(
        "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo"
    )
    with pytest.raises(grpc.RpcError) as refusal:
        next(call(iter([b"\xff\xff\xff"]), timeout=60))
    assert refusal.value.code() is grpc.StatusCode.INVALID_ARGUMENT
