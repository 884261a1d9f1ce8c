"""kserve's Python SDK: its gRPC client, which is an asyncio one."""

from __future__ import annotations

import asyncio
import importlib.util
from collections.abc import Awaitable, Callable
from typing import Any

import grpc
import numpy as np
import pytest
from kserve import InferenceGRPCClient, InferInput, InferRequest
from kserve.protocol.grpc import grpc_predict_v2_pb2 as their_stubs
from kserve.protocol.grpc.grpc_predict_v2_pb2_grpc import GRPCInferenceServiceStub
from kserve.protocol.infer_type import RequestedOutput
from numpy.typing import NDArray

import dropserve.inference.service_pb2 as our_stubs
from dropserve_client import Client

SECONDS = 60.0
Rows = NDArray[np.float32]


def ask(address: str, scenario: Callable[[Any], Awaitable[None]]) -> None:
    async def life() -> None:
        async with InferenceGRPCClient(address, timeout=SECONDS) as client:
            await scenario(client)

    asyncio.run(asyncio.wait_for(life(), SECONDS))


def request(
    rows: Any, model: str = "classes", *, datatype: str = "FP32", raw: bool = True, **fields: Any
) -> Any:
    tensor = InferInput("features", list(rows.shape), datatype)
    tensor.set_data_from_numpy(rows, binary_data=raw)
    return InferRequest(model_name=model, infer_inputs=[tensor], **fields)


def outputs(response: Any) -> dict[str, Any]:
    return {output.name: output.as_numpy() for output in response.outputs}


def test_the_server_and_its_models_are_ready(address: str) -> None:
    async def scenario(client: Any) -> None:
        assert await client.is_server_live()
        assert await client.is_server_ready()
        assert await client.is_model_ready("classes")
        assert not await client.is_model_ready("nothing")

    ask(address, scenario)


@pytest.mark.parametrize("raw", [True, False])
@pytest.mark.parametrize("datatype", ["FP32", "FP64"])
def test_a_plain_request_is_answered_without_dropout(
    address: str, sdk: Client, rows: Rows, datatype: str, raw: bool
) -> None:
    typed = rows.astype({"FP32": np.float32, "FP64": np.float64}[datatype])

    async def scenario(client: Any) -> None:
        response = await client.infer(request(typed, datatype=datatype, raw=raw, request_id="r-1"))
        assert (response.model_name, response.model_version, response.id) == ("classes", "1", "r-1")
        answer = outputs(response)
        assert list(answer) == ["mean"]
        np.testing.assert_array_equal(answer["mean"], sdk.predict("classes", rows).mean)

    ask(address, scenario)


def test_parameters_give_error_bars(address: str, sdk: Client, rows: Rows) -> None:
    bars = sdk.predict("classes", rows, passes=40, seed=7, quantiles=(0.05, 0.95))
    for parameters in (
        {"passes": 40, "seed": 7, "quantiles": "0.05,0.95"},
        {"passes": "40", "seed": "7", "quantiles": "0.05,0.95"},
    ):

        async def scenario(client: Any, parameters: dict[str, Any] = parameters) -> None:
            response = await client.infer(request(rows, parameters=parameters))
            answer = outputs(response)
            assert set(answer) == {
                "mean", "variance", "standard_error", "std_standard_error", "predictive_entropy",
                "expected_entropy", "mutual_information", "quantiles",
            }  # fmt: skip
            for name, array in answer.items():
                np.testing.assert_array_equal(array, getattr(bars, name))

        ask(address, scenario)


def test_outputs_are_chosen_by_name(address: str, rows: Rows) -> None:
    async def scenario(client: Any) -> None:
        wanted = [RequestedOutput("variance"), RequestedOutput("mean")]
        response = await client.infer(request(rows, parameters={"passes": 20}, request_outputs=wanted))
        assert list(outputs(response)) == ["variance", "mean"]

    ask(address, scenario)


@pytest.mark.parametrize(
    ("model", "parameters", "code"),
    [
        ("nothing", {}, grpc.StatusCode.NOT_FOUND),
        ("plain", {}, grpc.StatusCode.INVALID_ARGUMENT),
        ("classes", {"passes": "many"}, grpc.StatusCode.INVALID_ARGUMENT),
    ],
)
def test_errors_have_their_status(
    address: str, rows: Rows, model: str, parameters: dict[str, Any], code: grpc.StatusCode
) -> None:
    async def scenario(client: Any) -> None:
        with pytest.raises(grpc.aio.AioRpcError) as error:
            await client.infer(request(rows, model, parameters=parameters))
        assert error.value.code() is code

    ask(address, scenario)


def test_metadata_and_a_request_by_their_synchronous_stubs(address: str, sdk: Client, rows: Rows) -> None:
    """The SDK has no synchronous client and asks for no metadata; its stubs do."""
    with grpc.insecure_channel(address) as channel:
        stub = GRPCInferenceServiceStub(channel)
        server = stub.ServerMetadata(their_stubs.ServerMetadataRequest(), timeout=SECONDS)
        assert server.name == "dropserve"
        model = stub.ModelMetadata(their_stubs.ModelMetadataRequest(name="classes"), timeout=SECONDS)
        assert [(t.name, t.datatype, list(t.shape)) for t in model.inputs] == [("features", "FP32", [-1, 30])]
        assert [(t.name, t.datatype, list(t.shape)) for t in model.outputs] == [("mean", "FP32", [-1, 3])]
        response = stub.ModelInfer(request(rows).to_grpc(), timeout=SECONDS)
        mean = np.frombuffer(response.raw_output_contents[0], "<f4").reshape(7, 3)
        np.testing.assert_array_equal(mean, sdk.predict("classes", rows).mean)


def test_it_brings_no_torch() -> None:
    assert importlib.util.find_spec("torch") is None


def test_our_stubs_live_beside_theirs() -> None:
    """Both define the messages of the package `inference`; in one descriptor pool that is an error."""
    ours = our_stubs.ModelInferRequest(model_name="m")
    ours.parameters["passes"].int64_param = 3
    theirs = their_stubs.ModelInferRequest.FromString(ours.SerializeToString())
    assert theirs.parameters["passes"].int64_param == 3
    assert theirs.DESCRIPTOR is not ours.DESCRIPTOR
