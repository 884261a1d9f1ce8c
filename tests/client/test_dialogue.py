"""What is asked of a server, carried by hand: no gRPC."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import grpc
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dropserve.v1 import model_pb2, prediction_pb2
from dropserve_client import DropserveError, InputError, NotFoundError, Prediction, dialogue, wire
from dropserve_client.dialogue import Dialogue, KnownModels
from dropserve_client.wire import Limits
from support.fake_server import answer_mean, model, respond

Asked = list[Any]


def hold(
    steps: Dialogue[Any],
    asked: Asked,
    models: list[model_pb2.ModelInfo],
    refuse: Callable[[Any], None] | None = None,
) -> Any:
    """Answer a dialogue as a server would; what it asks is added to `asked`."""

    def answer(request: Any) -> Any:
        asked.append(request)
        if refuse is not None:
            refuse(request)
        wanted = request.version
        info = next(m for m in models if m.version == wanted or (not wanted and m.is_default))
        if isinstance(request, prediction_pb2.GetModelRequest):
            return prediction_pb2.GetModelResponse(model=info)
        return respond(request, info)

    try:
        step = next(steps)
        while True:
            try:
                answers = [answer(r) for r in step] if isinstance(step, Iterator) else answer(step)
            except DropserveError as error:
                step = steps.throw(error)
            else:
                step = steps.send(answers)
    except StopIteration as done:
        return done.value


def predict(
    X: Any,
    *,
    limits: Limits = Limits(10**6, 10**6),  # noqa: B008  # immutable
    known: KnownModels | None = None,
    models: list[model_pb2.ModelInfo] | None = None,
    refuse: Callable[[Any], None] | None = None,
    **options: Any,
) -> tuple[Prediction, Asked]:
    asked: Asked = []
    steps = dialogue.predict({} if known is None else known, wire.question("toy", **options), X, limits)
    return hold(steps, asked, models or [model()], refuse), asked


def rows(count: int) -> Any:
    return np.arange(count * 3, dtype=np.float32).reshape(count, 3)


@given(
    count=st.integers(1, 40),
    at_once=st.integers(1, 45),
    seed=st.none() | st.integers(0, 2**64 - 1),
    passes=st.none() | st.integers(1, 5),
    quantiles=st.lists(st.floats(0, 1, width=32), max_size=3),
    return_samples=st.booleans(),
)
def test_however_the_rows_are_split_the_answer_is_the_same(
    count: int,
    at_once: int,
    seed: int | None,
    passes: int | None,
    quantiles: list[float],
    return_samples: bool,
) -> None:
    X = rows(count)
    options: dict[str, Any] = {}
    if passes is not None:
        options = {"passes": passes, "quantiles": quantiles, "return_samples": return_samples}
        options["seed"] = 11 if seed is None else seed
    whole, _ = predict(X, **options)
    parts, asked = predict(X, limits=Limits(10**6, at_once), **options)

    requests = [request for request in asked if isinstance(request, prediction_pb2.PredictRequest)]
    assert len(requests) == -(-count // at_once)
    for name in Prediction.__dataclass_fields__:
        if name != "timings":
            np.testing.assert_array_equal(getattr(parts, name), getattr(whole, name))
    assert parts.timings.compute_seconds == len(requests) * whole.timings.compute_seconds


def test_an_unseeded_split_draws_one_seed_for_all_parts() -> None:
    first, asked = predict(rows(10), limits=Limits(10**6, 3), passes=20)
    seeds = {request.monte_carlo.seed for request in asked}
    assert len(asked) == 4
    assert len(seeds) == 1
    assert all(request.monte_carlo.HasField("seed") for request in asked)
    assert first.variance is not None
    assert len(np.unique(first.variance)) == 1
    _, asked_again = predict(rows(10), limits=Limits(10**6, 3), passes=20)
    assert asked_again[0].monte_carlo.seed not in seeds


def test_an_unseeded_request_that_is_not_split_stays_unseeded() -> None:
    _, (request,) = predict(rows(10), passes=20)
    assert not request.monte_carlo.HasField("seed")


def test_one_version_answers_all_parts() -> None:
    models = [model(version="1", is_default=False), model(version="2")]

    def publish(request: Any) -> None:
        if len(models) == 2 and request.version:
            models[1].is_default = False
            models.append(model(version="3"))

    prediction, asked = predict(rows(10), limits=Limits(10**6, 3), models=models, refuse=publish)
    assert [request.version for request in asked] == ["", "2", "2", "2"]
    assert prediction.version == "2"


def replace_version(models: list[model_pb2.ModelInfo], times: int) -> Callable[[Any], None]:
    """So often the version that is asked for by its number has just been replaced by the next."""
    left = times

    def refuse(request: Any) -> None:
        nonlocal left
        if request.version and left:
            left -= 1
            models[:] = [model(version=str(int(request.version) + 1))]
            raise NotFoundError("unloaded", code=grpc.StatusCode.NOT_FOUND)

    return refuse


@pytest.mark.parametrize("framed", [False, True])
def test_a_version_that_is_unloaded_between_two_parts_is_followed_by_the_next(framed: bool) -> None:
    X = Frame(a=[1.0] * 10, b=[2.0] * 10, c=[3.0] * 10) if framed else rows(10)
    models = [model(version="1")]
    prediction, asked = predict(X, limits=Limits(10**6, 3), models=models, refuse=replace_version(models, 3))
    assert prediction.version == "4"
    assert len(prediction.mean) == 10
    last = [request.version for request in asked if isinstance(request, prediction_pb2.PredictRequest)][-3:]
    assert last == ["4", "4", "4"]


def test_versions_that_are_replaced_without_end_are_given_up() -> None:
    models = [model(version="1")]
    with pytest.raises(NotFoundError, match="unloaded"):
        predict(rows(10), limits=Limits(10**6, 3), models=models, refuse=replace_version(models, 99))


def test_a_version_that_was_asked_for_is_not_exchanged() -> None:
    models = [model(version="1")]
    with pytest.raises(NotFoundError):
        predict(
            rows(10), limits=Limits(10**6, 3), version="1", models=models, refuse=replace_version(models, 1)
        )


def test_parts_carry_the_options_and_the_request_id() -> None:
    _, asked = predict(
        rows(4), limits=Limits(10**6, 3), passes=7, quantiles=[0.5], request_id="r", masks="independent"
    )
    last = [request for request in asked if isinstance(request, prediction_pb2.PredictRequest)][-1]
    assert (last.request_id, last.monte_carlo.passes, list(last.monte_carlo.quantiles)) == ("r", 7, [0.5])
    assert last.monte_carlo.masks == prediction_pb2.MASKS_INDEPENDENT


def test_samples_are_split_by_the_size_of_their_answer() -> None:
    prediction, asked = predict(rows(10), limits=Limits(4000, 10**6), passes=100, return_samples=True)
    requests = [request for request in asked if isinstance(request, prediction_pb2.PredictRequest)]
    # 100 passes of 2 outputs are 800 bytes a row.
    assert [request.inputs.shape[0] for request in requests] == [5, 5]
    assert prediction.samples is not None
    assert prediction.samples.shape == (100, 10, 2)


class Frame(dict[str, Any]):
    @property
    def columns(self) -> list[str]:
        return list(self)


FRAME = Frame(label=["x", "y"], c=[3.0, 6.0], a=[1.0, 4.0], b=[2.0, 5.0])
FRAME_MEAN = answer_mean([[1, 2, 3], [4, 5, 6]])


def test_a_frame_is_matched_to_the_model_which_is_asked_for_once() -> None:
    known: KnownModels = {}
    for expected in (["GetModelRequest", "PredictRequest"], ["PredictRequest"]):
        prediction, asked = predict(FRAME, known=known)
        assert [type(request).__name__ for request in asked] == expected
        np.testing.assert_array_equal(prediction.mean, FRAME_MEAN)


def test_each_version_is_asked_for() -> None:
    models = [model(version="1", is_default=False), model(version="2", feature_names=["c", "b", "a"])]
    known: KnownModels = {}
    for version in ("1", "2", ""):
        prediction, asked = predict(FRAME, known=known, models=models, version=version)
        assert type(asked[0]).__name__ == "GetModelRequest"
        assert prediction.version == (version or "2")
        np.testing.assert_array_equal(prediction.mean, FRAME_MEAN)


@pytest.mark.parametrize("features", [["c", "a", "b"], ["a", "b", "c"]])
def test_a_frame_follows_a_newly_published_version(features: list[str]) -> None:
    known: KnownModels = {}
    predict(FRAME, known=known)
    models = [model(version="1", is_default=False), model(version="2", feature_names=features)]
    prediction, _ = predict(FRAME, known=known, models=models)
    assert prediction.version == "2"
    np.testing.assert_array_equal(prediction.mean, FRAME_MEAN)
    _, asked = predict(FRAME, known=known, models=models)
    assert len(asked) == 1


def test_a_frame_follows_a_new_version_that_refuses_the_old_features() -> None:
    known: KnownModels = {}
    predict(FRAME, known=known)

    def refuse(request: Any) -> None:
        if isinstance(request, prediction_pb2.PredictRequest) and request.inputs.shape[1] == 3:
            raise InputError("4 features, please", field="inputs.shape")

    wider = Frame(FRAME, d=[0.0, 0.0])
    models = [model(version="2", feature_names=["a", "b", "c", "d"])]
    prediction, _ = predict(wider, known=known, models=models, refuse=refuse)
    assert prediction.version == "2"


def test_a_frame_that_is_wrong_for_the_newest_version_is_refused() -> None:
    known: KnownModels = {}
    predict(FRAME, known=known)

    def refuse(request: Any) -> None:
        if isinstance(request, prediction_pb2.PredictRequest):
            raise InputError("4 features, please", field="inputs.shape")

    with pytest.raises(InputError, match="no column 'd'"):
        predict(FRAME, known=known, models=[model(version="2", feature_names=list("abcd"))], refuse=refuse)


@pytest.mark.parametrize("X", [[[np.inf]], [[1j]], [1.0], []])
def test_nothing_is_asked_for_an_array_that_is_wrong(X: Any) -> None:
    steps = dialogue.predict({}, wire.question("toy"), X, Limits(1, 1))
    with pytest.raises(InputError):
        next(steps)


COLUMNS = [
    model_pb2.Column(kind=model_pb2.COLUMN_KIND_NUMBER, accepts_missing=True),
    model_pb2.Column(kind=model_pb2.COLUMN_KIND_CATEGORY, categories=["u", "v"]),
    model_pb2.Column(kind=model_pb2.COLUMN_KIND_NUMBER),
]


def test_text_and_gaps_are_read_by_the_columns_of_the_version_that_answers() -> None:
    known: KnownModels = {}
    models = [model(columns=COLUMNS)]
    prediction, asked = predict([[1, "v", 3], [2, "w", 3]], known=known, models=models)
    assert [type(request).__name__ for request in asked] == ["GetModelRequest", "PredictRequest"]
    np.testing.assert_array_equal(prediction.mean, answer_mean([[1, 1, 3], [2, -1, 3]]))
    gap, asked = predict([[np.nan, 0, 3]], known=known, models=models)
    assert len(asked) == 1
    sent = np.frombuffer(asked[0].inputs.raw, "<f4")
    np.testing.assert_array_equal(sent, [np.nan, 0, 3])
    assert gap.mean.shape == (1, 2)
    # Numbers that are all there are sent as they are, whatever the columns hold: nothing is asked.
    assert len(predict(rows(2), models=models)[1]) == 1


@pytest.mark.parametrize("X", [[[np.nan, 2, 3]], [["1", "v", "3"]]])
def test_text_and_gaps_are_refused_where_all_columns_are_plain_numbers(X: Any) -> None:
    with pytest.raises(InputError, match=r"features must be finite|X must hold numbers"):
        predict(X)
