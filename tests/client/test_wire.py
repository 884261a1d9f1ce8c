from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from dropserve.v1 import model_pb2, prediction_pb2
from dropserve.v1.tensor_pb2 import Tensor
from dropserve_client import Column, InputError, Prediction, ProtocolError, Timings, wire
from dropserve_client.wire import Limits
from support.fake_server import tensor

FLOATS = st.floats(width=32, allow_nan=False)
MATRICES = arrays.arrays(np.float32, arrays.array_shapes(min_dims=2, max_dims=2), elements=FLOATS)


def response(**fields: Any) -> prediction_pb2.PredictResponse:
    tensors = {name: tensor(value) for name, value in fields.items() if isinstance(value, np.ndarray)}
    return prediction_pb2.PredictResponse(**(fields | tensors))


@given(MATRICES)
def test_a_request_carries_shape_and_little_endian_bytes(features: np.ndarray[Any, Any]) -> None:
    message = wire.predict_request(wire.question("m"), features)
    message = prediction_pb2.PredictRequest.FromString(message.SerializeToString())
    assert list(message.inputs.shape) == list(features.shape)
    assert message.inputs.raw == features.astype("<f4").tobytes()
    assert not message.inputs.values


def test_a_plain_request_is_deterministic_and_says_no_more_than_it_must() -> None:
    message = wire.predict_request(wire.question("m"), np.zeros((1, 2), np.float32))
    assert message.WhichOneof("mode") is None
    assert (message.model, message.version, message.request_id) == ("m", "", "")


def test_every_option_reaches_the_request() -> None:
    ask = wire.question(
        "m",
        version=3,
        passes=np.int64(50),  # type: ignore[arg-type]
        seed=2**64 - 1,
        quantiles=np.array([0.25, 0.75]),  # type: ignore[arg-type]
        return_samples=True,
        masks="independent",
        request_id="r-1",
    )
    message = wire.predict_request(ask, np.zeros((1, 2), np.float32))
    assert (message.model, message.version, message.request_id) == ("m", "3", "r-1")
    assert message.monte_carlo == prediction_pb2.MonteCarlo(
        passes=50,
        seed=2**64 - 1,
        quantiles=[0.25, 0.75],
        return_samples=True,
        masks=prediction_pb2.MASKS_INDEPENDENT,
    )


def test_seed_0_is_a_seed() -> None:
    asked = wire.question("m", passes=1, seed=0).monte_carlo
    unseeded = wire.question("m", passes=1).monte_carlo
    assert asked is not None
    assert unseeded is not None
    assert asked.HasField("seed")
    assert not unseeded.HasField("seed")


@pytest.mark.parametrize(
    ("options", "field", "told"),
    [
        ({"passes": 0}, "monte_carlo.passes", "from 1 to"),
        ({"passes": 2**32}, "monte_carlo.passes", "from 1 to"),
        ({"passes": True}, "monte_carlo.passes", "True"),
        ({"passes": 1.5}, "monte_carlo.passes", "1.5"),
        ({"passes": "9"}, "monte_carlo.passes", "'9'"),
        ({"passes": 9, "seed": -1}, "monte_carlo.seed", "from 0 to"),
        ({"passes": 9, "seed": 2**64}, "monte_carlo.seed", "from 0 to"),
        ({"passes": 9, "seed": "x"}, "monte_carlo.seed", "'x'"),
        ({"passes": 9, "quantiles": 0.5}, "monte_carlo.quantiles", "0.5"),
        ({"passes": 9, "quantiles": ["half"]}, "monte_carlo.quantiles", "half"),
        ({"passes": 9, "masks": "random"}, "monte_carlo.masks", "'stratified' or 'independent'"),
        ({"seed": 7}, "monte_carlo.seed", "give passes as well"),
        ({"quantiles": [0.5]}, "monte_carlo.quantiles", "give passes as well"),
        ({"return_samples": True}, "monte_carlo.return_samples", "give passes as well"),
        ({"masks": "stratified"}, "monte_carlo.masks", "give passes as well"),
        ({"version": 1.0}, "version", "1.0"),
        ({"version": True}, "version", "True"),
        ({"request_id": 7}, "request_id", "7"),
        ({"request_id": "\ud800"}, "request_id", "UTF-8"),
        ({"version": "\ud800"}, "version", "UTF-8"),
    ],
)
def test_options_that_the_wire_cant_carry_are_refused(options: dict[str, Any], field: str, told: str) -> None:
    with pytest.raises(InputError) as caught:
        wire.question("m", **options)
    assert caught.value.field == field
    assert told in str(caught.value)


@pytest.mark.parametrize("model", ["", None, 7, "\ud800"])
def test_a_model_must_have_a_name(model: Any) -> None:
    with pytest.raises(InputError, match="model must be"):
        wire.question(model)


def test_a_deterministic_answer() -> None:
    answer = response(model="m", version="4", request_id="r", mean=np.array([[1, 2], [3, 4]], np.float32))
    answer.timings.queue_seconds, answer.timings.compute_seconds = 0.5, 0.25
    prediction = wire.prediction(answer, rows=2)
    np.testing.assert_array_equal(prediction.mean, [[1, 2], [3, 4]])
    assert (prediction.model, prediction.version, prediction.request_id) == ("m", "4", "r")
    assert prediction.timings == Timings(0.5, 0.25)
    absent = set(Prediction.__dataclass_fields__) - {
        "mean",
        "model",
        "version",
        "request_id",
        "passes",
        "timings",
    }
    assert {name: getattr(prediction, name) for name in absent} == dict.fromkeys(absent)
    assert prediction.passes == 0
    assert prediction.std is None
    assert prediction.predictive_variance is None


def test_a_monte_carlo_answer() -> None:
    sent = {
        "mean": np.array([[1, 2]], np.float32),
        "variance": np.array([[4, 9]], np.float32),
        "standard_error": np.array([[0.1, 0.2]], np.float32),
        "aleatoric_variance": np.array([[1, 1]], np.float32),
        "predictive_entropy": np.array([0.5], np.float32),
        "expected_entropy": np.array([0.25], np.float32),
        "mutual_information": np.array([0.25], np.float32),
        "quantiles": np.zeros((3, 1, 2), np.float32),
        "samples": np.zeros((5, 1, 2), np.float32),
    }
    prediction = wire.prediction(response(passes=5, **sent), rows=1)
    for name, array in sent.items():
        received = getattr(prediction, name)
        assert received.dtype == np.float32
        np.testing.assert_array_equal(received, array)
    assert prediction.passes == 5
    np.testing.assert_array_equal(prediction.std, [[2, 3]])
    np.testing.assert_array_equal(prediction.predictive_variance, [[5, 10]])


def test_a_noise_variance_comes_with_deterministic_answers_too() -> None:
    one = np.ones((1, 2), np.float32)
    prediction = wire.prediction(response(mean=one, aleatoric_variance=one * 4), rows=1)
    np.testing.assert_array_equal(prediction.predictive_variance, one * 4)


def test_arrays_are_the_callers_own() -> None:
    prediction = wire.prediction(response(mean=np.ones((2, 2), np.float32)), rows=2)
    prediction.mean[0] = 7
    np.testing.assert_array_equal(prediction.mean, [[7, 7], [1, 1]])


@pytest.mark.parametrize(
    "mean",
    [
        Tensor(shape=[2, 2], raw=b"\0" * 12),
        Tensor(shape=[2, 2], raw=b"\0" * 20),
        Tensor(shape=[2, -2], raw=b"\0" * 16),
        Tensor(shape=[-2, -2], raw=b"\0" * 16),
        Tensor(shape=[2, 2**62], raw=b"\0" * 16),
        Tensor(shape=[2**62, 2**62], raw=b""),
        Tensor(shape=[3, 2], raw=b"\0" * 24),
        Tensor(shape=[], raw=b"\0" * 4),
        Tensor(shape=[1] * 65, raw=b"\0" * 4),
        Tensor(),
    ],
)
def test_an_answer_that_contradicts_itself_or_the_request_is_refused(mean: Tensor) -> None:
    with pytest.raises(ProtocolError, match="mean"):
        wire.prediction(prediction_pb2.PredictResponse(mean=mean), rows=2)


@pytest.mark.parametrize("name", ["variance", "predictive_entropy", "quantiles", "samples"])
def test_every_field_must_have_the_requests_rows(name: str) -> None:
    answer = response(passes=5, mean=np.ones((2, 1), np.float32), **{name: np.ones((7, 7, 7), np.float32)})
    with pytest.raises(ProtocolError, match=name):
        wire.prediction(answer, rows=2)


def test_what_a_model_is() -> None:
    info = wire.model_info(
        model_pb2.ModelInfo(
            name="m",
            version="2",
            is_default=True,
            task=model_pb2.TASK_BINARY,
            feature_names=["a", "b"],
            output_names=["no", "yes"],
            drop_rates=[0.25],
            monte_carlo_unavailable="because",
            predicts_noise=True,
            provider="CUDAExecutionProvider",
            columns=[
                model_pb2.Column(kind=model_pb2.COLUMN_KIND_NUMBER, accepts_missing=True),
                model_pb2.Column(kind=model_pb2.COLUMN_KIND_CATEGORY, categories=["u", "v"]),
                model_pb2.Column(kind=7),  # type: ignore[arg-type]  # of a newer server
            ],
        )
    )
    assert info.columns == (
        Column("number", (), True),
        Column("category", ("u", "v")),
        Column("unspecified"),
    )
    assert (info.name, info.version, info.task, info.is_default) == ("m", "2", "binary", True)
    assert (info.feature_names, info.output_names) == (("a", "b"), ("no", "yes"))
    assert (info.drop_rates, info.predicts_noise) == ((0.25,), True)
    assert (info.provider, info.monte_carlo_unavailable) == ("CUDAExecutionProvider", "because")
    assert wire.model_info(model_pb2.ModelInfo()).monte_carlo_unavailable is None
    tasks = {wire.model_info(model_pb2.ModelInfo(task=task)).task for task in model_pb2.Task.values()}
    assert tasks == {"unspecified", "regression", "binary", "multiclass"}


@given(rows=st.integers(1, 500), at_once=st.integers(1, 600))
def test_parts_are_the_rows_in_order(rows: int, at_once: int) -> None:
    matrix = np.arange(rows * 2, dtype=np.float32).reshape(rows, 2)
    parts = list(wire.split(matrix, at_once))
    np.testing.assert_array_equal(np.concatenate(parts), matrix)
    assert all(1 <= len(part) <= at_once for part in parts)


@given(
    features=st.integers(1, 4000),
    outputs=st.integers(1, 50),
    passes=st.integers(1, 10_000),
    quantiles=st.lists(st.floats(0, 1), max_size=64),
    return_samples=st.booleans(),
)
def test_requests_and_their_answers_stay_within_the_limits(
    features: int, outputs: int, passes: int, quantiles: list[float], return_samples: bool
) -> None:
    ask = wire.question("m", passes=passes, quantiles=quantiles, return_samples=return_samples)
    limits = Limits(4 * 10**6, 1000)
    rows = wire.rows_per_request(ask, features, outputs, limits)
    answer_bytes = 4 * rows * outputs * (passes * return_samples + len(quantiles))
    assert 1 <= rows <= limits.rows
    assert rows == 1 or max(4 * rows * features, answer_bytes) <= limits.bytes


@pytest.mark.parametrize("limits", [(0, 1), (1, 0), (1.5, 1), (1, True)])
def test_limits_are_positive_integers(limits: Any) -> None:
    with pytest.raises(InputError, match="positive integer"):
        Limits(*limits)


def test_parts_answered_by_different_versions_are_not_joined() -> None:
    one = np.ones((1, 1), np.float32)
    with pytest.raises(ProtocolError, match="different versions"):
        wire.join([Prediction(one, version="1"), Prediction(one, version="2")])


LARGE = np.zeros((64, 64), np.float32)  # 16 KiB


@pytest.mark.parametrize(
    ("ask", "features", "announcement"),
    [
        (wire.question("m"), LARGE, {"model": "m", "rows": "64"}),
        (wire.question("m", version=3), LARGE, {"model": "m", "rows": "64", "version": "3"}),
        (wire.question("m", passes=50), LARGE, {"model": "m", "rows": "64", "passes": "50"}),
        (wire.question("m"), LARGE[:63], {}),
        (wire.question("m", passes=1000), LARGE[:1], {}),
        (wire.question("m", passes=50, mean_tolerance=0.1), LARGE, {}),
        (wire.question("m", passes=50, std_tolerance=0.1), LARGE, {}),
        (wire.question("modèle"), LARGE, {}),
        (wire.question("m\n"), LARGE, {}),
    ],
)
def test_large_requests_are_announced_in_what_metadata_can_carry(
    ask: wire.Question, features: Any, announcement: dict[str, str]
) -> None:
    told = wire.announcement(wire.predict_request(ask, features))
    assert dict(told) == {f"dropserve-{what}": text for what, text in announcement.items()}
    assert len(told) == len(announcement)
