"""The Open Inference Protocol of the real server, beside our own: the same answers, the same refusals."""

from __future__ import annotations

import queue
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest

from dropserve.inference import service_pb2 as pb
from dropserve.inference.service_pb2_grpc import GRPCInferenceServiceStub
from dropserve.v1.prediction_pb2 import MASKS_INDEPENDENT, MonteCarlo
from support.example_repository import NETWORKS, expected, rows_for
from support.open_inference import arrays_of, infer_request
from support.prediction_client import Asker, array_of, refusal_of
from support.server_process import TIMEOUT, server_process

ERROR_BARS = {
    "variance", "standard_error", "std_standard_error", "predictive_entropy", "expected_entropy",
    "mutual_information", "aleatoric_variance", "quantiles", "samples",
}  # fmt: skip


@pytest.fixture(scope="module")
def stub(ask: Asker) -> GRPCInferenceServiceStub:
    return GRPCInferenceServiceStub(ask.channel)


def infer(stub: GRPCInferenceServiceStub, *arguments: Any, **options: Any) -> dict[str, Any]:
    return arrays_of(stub.ModelInfer(infer_request(*arguments, **options), timeout=TIMEOUT))


@pytest.mark.parametrize("name", NETWORKS)
def test_a_plain_request_gets_the_networks_output(stub: GRPCInferenceServiceStub, name: str) -> None:
    rows = rows_for(name, 17)
    answer = infer(stub, name, rows)
    assert list(answer) == ["mean"]
    np.testing.assert_allclose(answer["mean"], expected(NETWORKS[name], rows), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("datatype", "raw"), [("FP32", False), ("FP64", True), ("FP64", False)])
def test_long_inputs_in_other_encodings_get_the_same_answer(
    stub: GRPCInferenceServiceStub, datatype: str, raw: bool
) -> None:
    rows = rows_for("classes", 3000)  # enough to be read off the event loop
    np.testing.assert_array_equal(
        infer(stub, "classes", rows, datatype=datatype, raw=raw)["mean"], infer(stub, "classes", rows)["mean"]
    )


@pytest.mark.parametrize("name", ["classes", "binary", "targets"])
@pytest.mark.parametrize(
    ("parameters", "monte_carlo"),
    [
        ({"passes": 30, "seed": 5}, MonteCarlo(passes=30, seed=5)),
        ({"passes": "1", "seed": 2**64 - 1}, MonteCarlo(passes=1, seed=2**64 - 1)),
        ({"seed": "6"}, MonteCarlo(seed=6)),
        (
            {"passes": 20, "seed": 5, "quantiles": "0.05,0.5,0.95", "return_samples": True},
            MonteCarlo(passes=20, seed=5, quantiles=[0.05, 0.5, 0.95], return_samples=True),
        ),
        (
            {"passes": 20, "seed": 5, "masks": "independent"},
            MonteCarlo(passes=20, seed=5, masks=MASKS_INDEPENDENT),
        ),
        (
            {"passes": 400, "seed": 5, "mean_tolerance": 0.2, "std_tolerance": "0.2"},
            MonteCarlo(passes=400, seed=5, mean_tolerance=0.2, std_tolerance=0.2),
        ),
    ],
)
def test_error_bars_are_those_of_our_own_protocol(
    ask: Asker, stub: GRPCInferenceServiceStub, name: str, parameters: dict[str, Any], monte_carlo: MonteCarlo
) -> None:
    rows = rows_for(name, 9)
    ours = ask.predict(name, rows, monte_carlo)
    response = stub.ModelInfer(infer_request(name, rows, parameters), timeout=TIMEOUT)
    answer = arrays_of(response)
    assert response.parameters["passes"].int64_param == ours.passes
    assert answer.pop("row_passes", np.zeros(0)).tolist() == list(ours.row_passes)
    assert set(answer) == {"mean"} | {name for name in ERROR_BARS if ours.HasField(name)}  # type: ignore[arg-type]
    for output, array in answer.items():
        np.testing.assert_array_equal(array, array_of(getattr(ours, output)))


def test_every_model_has_the_outputs_it_is_said_to_have(stub: GRPCInferenceServiceStub) -> None:
    for name, network in NETWORKS.items():
        metadata = stub.ModelMetadata(pb.ModelMetadataRequest(name=name), timeout=TIMEOUT)
        (tensor,) = metadata.inputs
        width = network.weights[0].shape[0]
        assert (tensor.name, tensor.datatype, list(tensor.shape)) == ("features", "FP32", [-1, width])
        answer = infer(stub, name, rows_for(name, 3))
        assert [(t.name, [3, *t.shape[1:]]) for t in metadata.outputs] == [
            (output, list(array.shape)) for output, array in answer.items()
        ]
        assert metadata.platform == "onnxruntime_onnx"
    versions = stub.ModelMetadata(pb.ModelMetadataRequest(name="targets"), timeout=TIMEOUT).versions
    assert list(versions) == ["1", "2"]


def test_a_version_is_chosen(ask: Asker, stub: GRPCInferenceServiceStub) -> None:
    rows = rows_for("targets", 3)
    answers = [infer(stub, "targets", rows, model_version=version)["mean"] for version in ("", "1", "2")]
    np.testing.assert_array_equal(answers[0], answers[2])
    np.testing.assert_array_equal(answers[1], array_of(ask.predict("targets", rows, version="1").mean))
    assert not np.array_equal(answers[0], answers[1])


FOUR = rows_for("targets", 2)


@pytest.mark.parametrize(
    ("request_", "code", "fields", "words"),
    [
        (infer_request("nothing", FOUR), "NOT_FOUND", (), "there is no model 'nothing'"),
        (infer_request("targets", FOUR, model_version="7"), "NOT_FOUND", (), "no version 7"),
        (infer_request("plain", FOUR, {"passes": 5}), "FAILED_PRECONDITION", (), "ropout"),
        (infer_request("targets", np.zeros((20_000, 4))), "RESOURCE_EXHAUSTED", (), "20000 rows"),
        (infer_request("targets", FOUR, model_version="x"), "INVALID_ARGUMENT", ("version",), "'x' is not"),
        (infer_request("targets", FOUR, id="x" * 257), "INVALID_ARGUMENT", ("request_id",), "256 bytes"),
        (infer_request("targets", FOUR * np.nan), "INVALID_ARGUMENT", ("inputs",), "(feature_0) is nan"),
        (infer_request("targets", FOUR[:0]), "INVALID_ARGUMENT", ("inputs",), "no rows"),
        (infer_request("targets", FOUR, {"pases": 5}), "INVALID_ARGUMENT", ("parameters",), "'pases'"),
        (
            infer_request("targets", FOUR, {"passes": 0}),
            "INVALID_ARGUMENT", ("parameters.passes",), "passes is 0",
        ),
        (
            infer_request("targets", FOUR, {"passes": 5001}),
            "INVALID_ARGUMENT", ("parameters.passes",), "at most 5000",
        ),
        (
            infer_request("targets", FOUR, {"quantiles": "0.5,1.5"}),
            "INVALID_ARGUMENT", ("parameters.quantiles",), "1.5",
        ),
        (
            infer_request("targets", FOUR, {"seed": -1}),
            "INVALID_ARGUMENT", ("parameters.seed",), "seed is -1",
        ),
        (
            infer_request("targets", FOUR, outputs=("variance",)),
            "INVALID_ARGUMENT", ("outputs",), "parameter passes",
        ),
    ],
)  # fmt: skip
def test_refusals_say_what_was_wrong(
    stub: GRPCInferenceServiceStub,
    request_: pb.ModelInferRequest,
    code: str,
    fields: tuple[str, ...],
    words: str,
) -> None:
    with pytest.raises(grpc.RpcError) as error:
        stub.ModelInfer(request_, timeout=TIMEOUT)
    refusal = refusal_of(error.value)
    assert refusal.code.name == code
    assert words in refusal.message
    assert refusal.fields == fields
    (answer,) = stub.ModelStreamInfer(iter([request_]), timeout=TIMEOUT)
    assert answer.error_message == refusal.message


def test_a_deadline_passes_while_it_is_computed(stub: GRPCInferenceServiceStub) -> None:
    long = infer_request("classes", rows_for("classes", 16_000), {"passes": 5000})
    with pytest.raises(grpc.RpcError) as error:
        stub.ModelInfer(long, timeout=0.2)
    assert refusal_of(error.value).code is grpc.StatusCode.DEADLINE_EXCEEDED


def test_what_is_damaged_is_in_the_index(stub: GRPCInferenceServiceStub) -> None:
    index = stub.RepositoryIndex(pb.RepositoryIndexRequest(), timeout=TIMEOUT).models
    assert {(m.name, m.version) for m in index if m.state == "READY"} == {
        *((name, "1") for name in (*NETWORKS, "wave")), ("targets", "2"),
    }  # fmt: skip
    (damaged,) = [m for m in index if m.state != "READY"]
    assert (damaged.name, damaged.version, damaged.state) == ("damaged", "1", "UNAVAILABLE")
    assert damaged.reason == "it could not be loaded; the server's log says why"


def test_a_stream_ends_at_a_signal_when_what_it_asked_is_answered(repository: Path) -> None:
    outgoing: queue.SimpleQueue[pb.ModelInferRequest | None] = queue.SimpleQueue()

    def questions() -> Iterator[pb.ModelInferRequest]:
        while (question := outgoing.get(timeout=TIMEOUT)) is not None:
            yield question

    with (
        server_process(repository, "--drain-seconds", "3") as server,
        grpc.insecure_channel(server.address) as channel,
    ):
        stub = GRPCInferenceServiceStub(channel)
        stream = stub.ModelStreamInfer(questions(), timeout=TIMEOUT)
        outgoing.put(infer_request("targets", FOUR, id="before"))
        assert next(stream).infer_response.id == "before"
        server.signal(signal.SIGTERM)
        server.wait_for("draining")
        assert stub.ServerLive(pb.ServerLiveRequest(), timeout=TIMEOUT).live
        assert not stub.ServerReady(pb.ServerReadyRequest(), timeout=TIMEOUT).ready
        outgoing.put(
            infer_request("targets", FOUR, id="during")
        )  # still taken: balancers need time to notice
        assert next(stream).infer_response.id == "during"
        with pytest.raises(grpc.RpcError) as end:
            next(stream)
        assert refusal_of(end.value).code is grpc.StatusCode.UNAVAILABLE
        outgoing.put(None)
        assert server.wait() == 0
    assert server.other_lines == []
