"""Answers of the real server: the right numbers, in both modes, for models that other tools made."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc
import numpy as np
import pytest

from dropserve.v1 import model_pb2, prediction_pb2
from dropserve.v1.prediction_pb2 import Deterministic, MonteCarlo, PredictRequest
from dropserve.v1.tensor_pb2 import Tensor
from support.example_repository import NETWORKS, OLD_TARGETS, expected, rows_for
from support.onnx_models import Mlp
from support.prediction_client import Asker, array_of, request
from support.server_process import ServerProcess, server_process

CLASSIFIERS = ("classes", "binary")


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("count", [1, 33])
def test_deterministic_answers(ask: Asker, name: str, count: int) -> None:
    rows = rows_for(name, count)
    response = ask.predict(name, rows, request_id="r-1")
    np.testing.assert_allclose(array_of(response.mean), expected(NETWORKS[name], rows), rtol=1e-4, atol=1e-5)
    assert (response.model, response.request_id, response.passes) == (name, "r-1", 0)
    assert not response.HasField("variance")
    assert not response.HasField("error")
    assert response.timings.compute_seconds > 0


def test_the_mode_may_be_named_or_not_and_values_do_for_raw(ask: Asker) -> None:
    rows = rows_for("targets", 3)
    plain = ask.predict("targets", rows)
    named = ask.stub.Predict(
        PredictRequest(
            model="targets",
            inputs=Tensor(shape=rows.shape, values=rows.ravel().tolist()),
            deterministic=Deterministic(),
        ),
        timeout=60,
    )
    assert named.mean == plain.mean


def test_many_values_are_read_too(ask: Asker) -> None:
    rows = rows_for("targets", 9000)
    response = ask.predict("targets", Tensor(shape=rows.shape, values=rows.ravel().tolist()))
    assert response.mean == ask.predict("targets", rows).mean


@pytest.mark.parametrize(("version", "network"), [("", NETWORKS["targets"]), ("1", OLD_TARGETS)])
def test_versions_answer_for_themselves(ask: Asker, version: str, network: Mlp) -> None:
    rows = rows_for("targets", 2)
    response = ask.predict("targets", rows, version=version)
    assert response.version == (version or "2")
    np.testing.assert_allclose(array_of(response.mean), expected(network, rows), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", ["classes", "binary", "targets"])
def test_monte_carlo_answers(ask: Asker, name: str) -> None:
    rows = rows_for(name, 5)
    options = MonteCarlo(passes=200, seed=3, quantiles=[0.9, 0.1], return_samples=True)
    response = ask.predict(name, rows, options)
    mean, samples = array_of(response.mean), array_of(response.samples)
    assert response.passes == 200
    assert samples.shape == (200, *mean.shape)
    np.testing.assert_allclose(mean, samples.mean(axis=0, dtype=np.float64), rtol=1e-4, atol=1e-5)
    high, low = array_of(response.quantiles)
    np.testing.assert_allclose(high, np.quantile(samples, 0.9, axis=0), rtol=1e-3, atol=1e-4)
    assert (high > low).all()
    assert (array_of(response.variance) > 0).all()
    assert (array_of(response.standard_error) > 0).all()
    if name in CLASSIFIERS:
        entropies = [response.predictive_entropy, response.expected_entropy, response.mutual_information]
        predictive, expected_entropy, mutual = (array_of(tensor) for tensor in entropies)
        assert predictive.shape == (5,)
        np.testing.assert_allclose(mutual, predictive - expected_entropy, atol=1e-5)
        np.testing.assert_allclose(mean.sum(axis=1), 1, atol=1e-5)
    else:
        assert not response.HasField("predictive_entropy")


def test_passes_default_to_the_servers_and_samples_come_only_when_asked_for(ask: Asker) -> None:
    response = ask.predict("targets", rows_for("targets", 1), MonteCarlo())
    assert response.passes == 50
    assert not response.HasField("samples")
    assert not response.HasField("quantiles")


def test_requests_without_a_seed_rarely_share_masks(ask: Asker) -> None:
    """Each is given one of 64 sets, so fewer than 8 for 16 would be one case in a million."""
    rows = rows_for("targets", 1)
    answers = {ask.predict("targets", rows, MonteCarlo(passes=10)).mean.raw for _ in range(16)}
    assert len(answers) >= 8


@pytest.mark.parametrize("masks", [prediction_pb2.MASKS_STRATIFIED, prediction_pb2.MASKS_INDEPENDENT])
def test_a_seed_gives_the_same_bytes_whatever_else_is_going_on(
    ask: Asker, masks: prediction_pb2.Masks.ValueType
) -> None:
    rows = rows_for("classes", 7)
    options = MonteCarlo(passes=50, seed=11, quantiles=[0.25], return_samples=True, masks=masks)

    def seeded(_: int) -> bytes:
        response = ask.predict("classes", rows, options)
        response.ClearField("timings")
        return response.SerializeToString(deterministic=True)

    def noise(number: int) -> None:
        options = MonteCarlo(passes=30, seed=11) if number % 2 else None
        ask.predict("classes", rows_for("classes", 1 + number % 50, seed=number), options)

    alone = seeded(0)
    with ThreadPoolExecutor(16) as pool:
        others = pool.map(noise, range(200))
        answers = set(pool.map(seeded, range(40)))
        list(others)
    assert answers == {alone}


def test_rows_do_not_depend_on_the_rows_beside_them(ask: Asker) -> None:
    rows, options = rows_for("classes", 16), MonteCarlo(passes=40, seed=5)
    whole = array_of(ask.predict("classes", rows, options).mean)
    parts = [array_of(ask.predict("classes", rows[i : i + 3], options).mean) for i in range(0, 16, 3)]
    np.testing.assert_array_equal(np.vstack(parts), whole)


def test_an_operation_that_monte_carlo_lacks_is_named_and_deterministic_answers_go_on(ask: Asker) -> None:
    rows = rows_for("targets", 2)
    weight = np.linspace(-1, 1, 8).reshape(4, 2)
    mean = array_of(ask.predict("wave", rows).mean)
    np.testing.assert_allclose(mean, np.sin(rows.astype(np.float64)) @ weight, atol=1e-5)
    refusal = ask.refused(request("wave", rows, MonteCarlo()))
    assert refusal.code.name == "FAILED_PRECONDITION"
    assert "Sin" in refusal.message
    assert "'wave'" in refusal.message


def test_a_model_without_dropout_refuses_monte_carlo(ask: Asker) -> None:
    refusal = ask.refused(request("plain", rows_for("plain", 2), MonteCarlo()))
    assert refusal.code.name == "FAILED_PRECONDITION"
    assert "ropout" in refusal.message


def test_every_served_version_is_listed(ask: Asker) -> None:
    models = ask.stub.ListModels(prediction_pb2.ListModelsRequest(), timeout=60).models
    listed = [(info.name, info.version, info.is_default) for info in models]
    assert listed == [
        ("binary", "1", True),
        ("classes", "1", True),
        ("plain", "1", True),
        ("targets", "1", False),
        ("targets", "2", True),
        ("wave", "1", True),
    ]
    by_name = {info.name: info for info in models}
    assert by_name["binary"].task == model_pb2.TASK_BINARY
    assert by_name["classes"].task == model_pb2.TASK_MULTICLASS
    assert by_name["targets"].task == model_pb2.TASK_REGRESSION
    assert "Sin" in by_name["wave"].monte_carlo_unavailable
    assert by_name["plain"].monte_carlo_unavailable
    for name, network in NETWORKS.items():
        info = by_name[name]
        assert len(info.feature_names) == network.weights[0].shape[0]
        assert list(info.drop_rates) == pytest.approx([rate for rate in network.rates if rate])
        assert info.provider.endswith("ExecutionProvider")
        if network.rates != [0.0, 0.0]:
            assert info.monte_carlo_unavailable == ""


def test_one_model_is_described(ask: Asker) -> None:
    get = ask.stub.GetModel
    newest = get(prediction_pb2.GetModelRequest(name="targets"), timeout=60).model
    oldest = get(prediction_pb2.GetModelRequest(name="targets", version="1"), timeout=60).model
    assert (newest.version, newest.is_default) == ("2", True)
    assert (oldest.version, oldest.is_default) == ("1", False)


def test_torch_is_loaded_by_the_first_monte_carlo_request_and_not_before(repository: Path) -> None:
    with server_process(repository) as server, grpc.insecure_channel(server.address) as channel:
        fresh = Asker(channel)
        fresh.predict("targets", rows_for("targets", 1))
        assert "onnxruntime" in server.loaded_libraries()
        assert "torch" not in server.loaded_libraries()
        fresh.predict("targets", rows_for("targets", 1), MonteCarlo())
        assert "torch" in server.loaded_libraries()


def test_the_log_has_one_line_for_the_damaged_model(server: ServerProcess) -> None:
    event = server.wait_for("model failed to load", model="damaged")
    assert event["level"] == "error"
    assert "damaged" in event["reason"]
    assert "trace" not in event
    assert server.other_lines == []


def test_nothing_warns(server: ServerProcess, ask: Asker) -> None:
    ask.predict("targets", rows_for("targets", 1), MonteCarlo(passes=1))
    assert [line for line in server.log if "Warning" in line["event"]] == []
