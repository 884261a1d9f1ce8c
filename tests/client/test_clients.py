"""Both clients against a real server."""

from __future__ import annotations

import inspect
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

import dropserve_client
from dropserve_client import (
    AsyncClient,
    Client,
    InputError,
    Prediction,
)
from support.fake_server import FakeService, HealthService, answer_mean, model, respond, serving

ROWS = np.arange(30, dtype=np.float32).reshape(10, 3)


def public_methods(kind: type) -> dict[str, inspect.Signature]:
    methods = inspect.getmembers(kind, inspect.isfunction)
    renamed = {"__aenter__": "__enter__", "__aexit__": "__exit__"}
    chosen = {renamed.get(name, name): method for name, method in methods}
    return {
        name: inspect.signature(method)
        for name, method in chosen.items()
        if not name.startswith("_") or name in ("__init__", "__enter__", "__exit__")
    }


def test_the_two_clients_have_the_same_methods_with_the_same_parameters() -> None:
    sync, awaited = public_methods(Client), public_methods(AsyncClient)
    assert {"predict", "predict_many", "list_models", "get_model", "is_ready", "close"} <= set(sync)
    assert set(awaited) == set(sync)
    for name in sync:
        assert awaited[name].parameters == sync[name].parameters, name
        answers = awaited[name].return_annotation.replace("AsyncIterator", "Iterator")
        assert answers == sync[name].return_annotation, name
        assert inspect.iscoroutinefunction(getattr(AsyncClient, name, None)) is (
            name not in ("__init__", "__enter__", "__exit__", "predict_many")
        )


def test_everything_exported_is_there() -> None:
    for name in dropserve_client.__all__:
        assert getattr(dropserve_client, name).__name__ == name
    assert set(dir(dropserve_client)) >= set(dropserve_client.__all__)
    with pytest.raises(AttributeError, match="no_such_name"):
        dropserve_client.no_such_name  # noqa: B018  # the access is the test


def test_a_point_prediction(client: Any) -> None:
    prediction = client.predict("toy", ROWS.tolist(), request_id="r-1")
    np.testing.assert_array_equal(prediction.mean, answer_mean(ROWS))
    assert (prediction.model, prediction.version, prediction.request_id) == ("toy", "1", "r-1")
    assert prediction.passes == 0
    assert prediction.variance is None
    assert prediction.timings.compute_seconds == 0.5


def test_error_bars(client: Any) -> None:
    prediction = client.predict("toy", ROWS, passes=5, seed=4, quantiles=[0.25, 0.5], return_samples=True)
    np.testing.assert_array_equal(prediction.mean, answer_mean(ROWS))
    np.testing.assert_array_equal(prediction.std, np.full((10, 2), 2))
    np.testing.assert_array_equal(prediction.quantiles[1], answer_mean(ROWS) + 0.5)
    assert prediction.samples.shape == (5, 10, 2)
    assert prediction.passes == 5


@pytest.mark.parametrize("options", [{"request_rows": 3}, {"request_bytes": 3 * 3 * 4}])
def test_large_inputs_are_split_and_rejoined(
    connect: Callable[..., Any], address: str, service: FakeService, options: dict[str, int]
) -> None:
    prediction = connect(address, **options).predict("toy", ROWS, passes=5)
    assert sorted(request.inputs.shape[0] for request in service.predict_calls) == [1, 3, 3, 3]
    np.testing.assert_array_equal(prediction.mean, answer_mean(ROWS))
    assert len(np.unique(prediction.variance)) == 1
    assert prediction.timings.queue_seconds == 4 * 0.25


def test_more_than_grpcs_4_mib_pass_both_ways(client: Any, service: FakeService) -> None:
    X = np.ones((400_000, 3), np.float32)
    assert client.predict("toy", X).mean.shape == (400_000, 2)
    assert max(request.ByteSize() for request in service.predict_calls) < 4 * 2**20
    assert client.predict("toy", X[:4000], passes=300, return_samples=True).samples.shape == (300, 4000, 2)


def test_a_large_answer_is_received(connect: Callable[..., Any], address: str) -> None:
    generous = connect(address, request_bytes=2**26, request_rows=10**6)
    prediction = generous.predict("toy", np.ones((1000, 3)), passes=2000, return_samples=True)
    assert prediction.samples.nbytes == 4 * 2000 * 1000 * 2


def test_many_batches_in_order(client: Any, service: FakeService) -> None:
    batches = [ROWS[: size + 1] + size for size in range(10)]
    predictions = list(client.predict_many("toy", batches, passes=3, seed=2, version="1", in_flight=3))
    assert len(predictions) == 10
    for batch, prediction in zip(batches, predictions, strict=True):
        np.testing.assert_array_equal(prediction.mean, answer_mean(batch))
        assert prediction.passes == 3
    assert {request.monte_carlo.seed for request in service.predict_calls} == {2}


def test_many_batches_are_read_as_they_are_answered(client: Any) -> None:
    taken = []

    def endless() -> Iterator[Any]:
        while True:
            taken.append(1)
            yield ROWS

    answers = client.predict_many("toy", endless(), in_flight=4)
    for _ in range(3):
        assert isinstance(next(answers), Prediction)
    assert len(taken) <= 3 + 4
    answers.close()


def test_leaving_early_does_not_wait_for_what_is_under_way(connect: Callable[..., Any]) -> None:
    class Slow(FakeService):
        def Predict(self, request: Any, context: Any) -> Any:
            one_row = request.inputs.shape[0] == 1
            return super().Predict(request, context) if one_row else respond(request, self.models[0])

    slow = Slow()
    slow.gate.clear()
    with serving(slow) as address:
        answers = connect(address).predict_many("toy", [ROWS, ROWS[:1], ROWS[:1]], in_flight=2)
        next(answers)
        left = time.monotonic()
        answers.close()
        assert time.monotonic() - left < 5


def test_a_batch_that_fails_ends_the_iteration(client: Any) -> None:
    answers = client.predict_many("toy", [ROWS, ROWS[0], ROWS], in_flight=1)
    assert len(next(answers).mean) == 10
    with pytest.raises(InputError, match="reshape"):
        next(answers)


def test_a_source_that_fails_is_heard(client: Any) -> None:
    def broken() -> Iterator[Any]:
        yield ROWS
        raise KeyError("the source's own")

    with pytest.raises(KeyError, match="the source's own"):
        list(client.predict_many("toy", broken()))


@pytest.mark.parametrize("in_flight", [0, -1, 1.5])
def test_at_least_one_batch_is_in_flight(client: Any, in_flight: Any) -> None:
    with pytest.raises(InputError, match="in_flight"):
        client.predict_many("toy", [ROWS], in_flight=in_flight)


def test_models_are_listed_and_described(client: Any, service: FakeService) -> None:
    service.models = [model("m", "1", is_default=False), model("m", "2")]
    assert [(info.name, info.version, info.is_default) for info in client.list_models()] == [
        ("m", "1", False),
        ("m", "2", True),
    ]
    assert client.get_model("m").version == "2"
    assert client.get_model("m", version=1).version == "1"
    assert client.get_model("m").feature_names == ("a", "b", "c")


def test_readiness(connect: Callable[..., Any]) -> None:
    health = HealthService()
    with serving(None, health=health) as address:
        client = connect(address)
        assert client.is_ready() is True
        assert client.is_ready("toy") is True
        assert health.asked == [b"", b"\n\x03toy"]
        health.status = HealthService.NOT_SERVING
        assert client.is_ready() is False
        health.status = None
        assert client.is_ready("unknown") is False
    assert client.is_ready(timeout=1) is False


def test_every_part_of_a_large_request_is_announced(
    connect: Callable[..., Any], address: str, service: FakeService
) -> None:
    client = connect(address, request_rows=3000, token="t0", insecure_token=True)
    client.predict("toy", np.ones((8000, 3)), passes=5)
    client.predict("toy", ROWS)
    first, *parts, small = service.announcements
    assert first == {"dropserve-model": "toy", "dropserve-rows": "3000", "dropserve-passes": "5"}
    assert sorted(part["dropserve-rows"] for part in parts) == ["2000", "3000"]
    assert {part["dropserve-version"] for part in parts} == {"1"}
    assert small == {}
    assert service.authorizations == ["Bearer t0"] * 4
