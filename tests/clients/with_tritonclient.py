"""tritonclient, NVIDIA's client of Triton: sync, asyncio and streams."""

from __future__ import annotations

import asyncio
import queue
from collections.abc import AsyncIterator, Iterator
from typing import Any

import numpy as np
import pytest
import tritonclient.grpc as triton
import tritonclient.grpc.aio as triton_aio
from numpy.typing import NDArray
from tritonclient.utils import InferenceServerException, triton_to_np_dtype

import dropserve.inference.service_pb2 as our_stubs
from dropserve_client import Client

SECONDS = 60.0
Rows = NDArray[np.float32]
ERROR_BARS = ("mean", "variance", "standard_error", "std_standard_error", "predictive_entropy",
              "expected_entropy", "mutual_information", "quantiles", "samples")  # fmt: skip
PARAMETERS = {"passes": 40, "seed": 7, "quantiles": "0.05,0.95", "return_samples": True}


@pytest.fixture(scope="module")
def client(address: str) -> Iterator[Any]:
    with triton.InferenceServerClient(address) as client:
        yield client


def features(rows: Rows, module: Any = triton, datatype: str = "FP32") -> list[Any]:
    tensor = module.InferInput("features", list(rows.shape), datatype)
    tensor.set_data_from_numpy(rows)
    return [tensor]


def check_error_bars(result: Any, sdk: Client, rows: Rows) -> None:
    """The answer to PARAMETERS is the SDK's, to the byte: a seed fixes it."""
    bars = sdk.predict("classes", rows, passes=40, seed=7, quantiles=(0.05, 0.95), return_samples=True)
    assert [output.name for output in result.get_response().outputs] == list(ERROR_BARS)
    for name in ERROR_BARS:
        np.testing.assert_array_equal(result.as_numpy(name), getattr(bars, name))
    assert result.get_response().parameters["passes"].int64_param == 40


def test_the_server_and_its_models_are_ready(client: Any) -> None:
    assert client.is_server_live()
    assert client.is_server_ready()
    assert client.is_model_ready("classes")
    assert client.is_model_ready("targets", "1")
    assert not client.is_model_ready("targets", "3")
    assert not client.is_model_ready("damaged")
    assert not client.is_model_ready("nothing")


def test_the_server_and_a_model_are_described(client: Any) -> None:
    server = client.get_server_metadata(as_json=True)
    assert server["name"] == "dropserve"
    assert server["version"]
    assert server["extensions"] == ["model_configuration", "parameters", "statistics"]
    model = client.get_model_metadata("targets", as_json=True)
    assert model["name"] == "targets"
    assert model["versions"] == ["1", "2"]
    assert model["inputs"] == [{"name": "features", "datatype": "FP32", "shape": ["-1", "4"]}]
    assert model["outputs"] == [{"name": "mean", "datatype": "FP32", "shape": ["-1", "2"]}]


def test_a_model_has_a_configuration(client: Any) -> None:
    config = client.get_model_config("classes", as_json=True)["config"]
    assert config["name"] == "classes"
    assert (config["platform"], config["backend"]) == ("onnxruntime_onnx", "onnxruntime")
    assert config["max_batch_size"] == 16_384
    assert config["input"] == [{"name": "features", "data_type": "TYPE_FP32", "dims": ["30"]}]
    assert config["output"] == [{"name": "mean", "data_type": "TYPE_FP32", "dims": ["3"]}]
    assert config["version_policy"] == {"specific": {"versions": ["1"]}}
    assert config["parameters"]["task"]["string_value"] == '"multiclass"'


def test_the_repository_has_an_index(client: Any) -> None:
    models = client.get_model_repository_index(as_json=True)["models"]
    assert [(m["name"], m.get("version"), m["state"]) for m in models] == [
        ("binary", "1", "READY"),
        ("classes", "1", "READY"),
        ("damaged", "1", "UNAVAILABLE"),
        ("plain", "1", "READY"),
        ("targets", "1", "READY"),
        ("targets", "2", "READY"),
        ("wave", "1", "READY"),
    ]
    assert models[2]["reason"]


@pytest.mark.parametrize("datatype", ["FP32", "FP64", "FP16"])
def test_a_plain_request_is_answered_without_dropout(
    client: Any, sdk: Client, rows: Rows, datatype: str
) -> None:
    typed = rows.astype(triton_to_np_dtype(datatype))
    result = client.infer("classes", features(typed, datatype=datatype), request_id="r-1")
    expected = sdk.predict("classes", typed).mean
    np.testing.assert_array_equal(result.as_numpy("mean"), expected)
    response = result.get_response()
    assert (response.model_name, response.model_version, response.id) == ("classes", "1", "r-1")
    assert [output.name for output in response.outputs] == ["mean"]


def test_parameters_give_error_bars(client: Any, sdk: Client, rows: Rows) -> None:
    check_error_bars(client.infer("classes", features(rows), parameters=PARAMETERS), sdk, rows)
    texts = {name: str(value).lower() for name, value in PARAMETERS.items()}
    check_error_bars(client.infer("classes", features(rows), parameters=texts), sdk, rows)


def test_outputs_are_chosen_by_name(client: Any, sdk: Client, rows: Rows) -> None:
    wanted = [triton.InferRequestedOutput("variance"), triton.InferRequestedOutput("mean")]
    result = client.infer("classes", features(rows), outputs=wanted, parameters={"passes": 20, "seed": 1})
    assert [output.name for output in result.get_response().outputs] == ["variance", "mean"]
    bars = sdk.predict("classes", rows, passes=20, seed=1)
    np.testing.assert_array_equal(result.as_numpy("variance"), bars.variance)
    assert result.as_numpy("standard_error") is None


def test_a_version_is_chosen(client: Any, sdk: Client, rows: Rows) -> None:
    for version in ("1", "2"):
        result = client.infer("targets", features(rows[:, :4]), model_version=version)
        expected = sdk.predict("targets", rows[:, :4], version=version).mean
        np.testing.assert_array_equal(result.as_numpy("mean"), expected)


def test_errors_have_their_status_and_say_why(client: Any, rows: Rows) -> None:
    for arguments, status, message in (
        ({"model_name": "nothing"}, "NOT_FOUND", "there is no model 'nothing'"),
        ({"model_name": "plain"}, "INVALID_ARGUMENT", "takes 4 features"),
        ({"model_version": "latest"}, "INVALID_ARGUMENT", "not a positive integer"),
        ({"parameters": {"pases": 3}}, "INVALID_ARGUMENT", "no parameter 'pases'"),
        ({"parameters": {"passes": 0}}, "INVALID_ARGUMENT", "passes is 0"),
        ({"outputs": [triton.InferRequestedOutput("variance")]}, "INVALID_ARGUMENT", "parameter passes"),
        ({"outputs": [triton.InferRequestedOutput("mean", 2)]}, "INVALID_ARGUMENT", "classification"),
    ):
        with pytest.raises(InferenceServerException) as error:
            client.infer(**{"model_name": "classes", "inputs": features(rows), **arguments})
        assert error.value.status() == f"StatusCode.{status}"
        assert message in error.value.message()


def test_a_stream_is_answered_in_its_order_failures_included(client: Any, sdk: Client, rows: Rows) -> None:
    answers: queue.Queue[tuple[Any, Any]] = queue.Queue()
    client.start_stream(lambda result, error: answers.put((result, error)), stream_timeout=SECONDS)
    for number in range(20):
        heavy = number % 5 == 0
        client.async_stream_infer(
            "nothing" if number == 7 else "classes",
            features(rows[: 1 + number % 7]),
            request_id=str(number),
            parameters={"passes": 2000} if heavy else None,
            enable_empty_final_response=True,
        )
    for number in range(20):
        result, error = answers.get(timeout=SECONDS)
        if number == 7:
            assert result is None
            assert "there is no model 'nothing'" in error.message()
            continue
        assert error is None
        response = result.get_response()
        assert response.id == str(number)
        assert response.parameters["triton_final_response"].bool_param
        assert ("variance" in {output.name for output in response.outputs}) == (number % 5 == 0)
    client.stop_stream()
    assert answers.empty()


def test_statistics_count_what_was_answered(client: Any, rows: Rows) -> None:
    def statistics() -> Any:
        (entry,) = client.get_inference_statistics("binary").model_stats
        return entry

    before = statistics()
    client.infer("binary", features(rows[:, :5]))
    client.infer("binary", features(rows[:3, :5]), parameters={"passes": 10})
    with pytest.raises(InferenceServerException):
        client.infer("binary", features(rows))
    after = statistics()
    assert (after.name, after.version) == ("binary", "1")
    assert after.inference_count - before.inference_count == 10
    assert after.execution_count - before.execution_count == 2
    gained, had = after.inference_stats, before.inference_stats
    for name, count in (("success", 2), ("fail", 1), ("queue", 2), ("compute_infer", 2)):
        assert getattr(gained, name).count - getattr(had, name).count == count
    spent = gained.success.ns - had.success.ns
    assert 0 < gained.compute_infer.ns - had.compute_infer.ns < spent
    assert after.last_inference >= before.last_inference
    every = client.get_inference_statistics().model_stats
    assert [(entry.name, entry.version) for entry in every] == [
        ("binary", "1"), ("classes", "1"), ("plain", "1"), ("targets", "1"), ("targets", "2"), ("wave", "1"),
    ]  # fmt: skip


def test_what_is_not_served_is_unimplemented(client: Any) -> None:
    with pytest.raises(InferenceServerException) as error:
        client.get_system_shared_memory_status()
    assert error.value.status() == "StatusCode.UNIMPLEMENTED"


def test_asyncio(address: str, sdk: Client, rows: Rows) -> None:
    async def life() -> None:
        async with triton_aio.InferenceServerClient(address) as client:
            assert await client.is_server_live()
            assert await client.is_server_ready()
            assert await client.is_model_ready("classes")
            assert (await client.get_model_metadata("classes")).inputs[0].shape == [-1, 30]
            plain, bars = await asyncio.gather(
                client.infer("classes", features(rows, triton_aio)),
                client.infer("classes", features(rows, triton_aio), parameters=PARAMETERS),
            )
            np.testing.assert_array_equal(plain.as_numpy("mean"), sdk.predict("classes", rows).mean)
            check_error_bars(bars, sdk, rows)

            async def questions() -> AsyncIterator[dict[str, Any]]:
                for number in range(5):
                    yield {
                        "model_name": "classes",
                        "inputs": features(rows, triton_aio),
                        "request_id": str(number),
                        "parameters": PARAMETERS,
                    }

            ids = []
            async for result, error in client.stream_infer(questions(), stream_timeout=SECONDS):
                assert error is None
                check_error_bars(result, sdk, rows)
                ids.append(result.get_response().id)
            assert ids == ["0", "1", "2", "3", "4"]

    asyncio.run(asyncio.wait_for(life(), SECONDS))


def test_our_stubs_live_beside_theirs() -> None:
    """Both define the messages of the package `inference`; in one descriptor pool that is an error."""
    ours = our_stubs.ModelInferRequest(model_name="m", raw_input_contents=[b"1234"])
    ours.parameters["passes"].int64_param = 3
    theirs = triton.service_pb2.ModelInferRequest.FromString(ours.SerializeToString())
    assert theirs.parameters["passes"].int64_param == 3
    assert theirs.DESCRIPTOR is not ours.DESCRIPTOR
