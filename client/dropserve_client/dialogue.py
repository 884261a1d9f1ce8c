"""What is asked of a server, step by step, without doing it.

A dialogue is a generator: it yields the next request, is sent the answer, and returns the result. The
clients only carry messages: `Client` waits for each answer, `AsyncClient` awaits it. Errors of a call
are thrown into the dialogue. (The idea is psycopg's.)
"""

from __future__ import annotations

import secrets
from collections.abc import Generator, Iterator
from dataclasses import replace
from typing import Any, TypeAlias, TypeVar

from dropserve.v1 import prediction_pb2
from dropserve_client import features, foreign, wire
from dropserve_client.errors import DeadlineExceededError, InputError, NotFoundError, UnavailableError
from dropserve_client.types import Features, FloatArray, ModelInfo, Prediction
from dropserve_client.wire import Limits, Question

T = TypeVar("T")

HealthCheck: TypeAlias = bytes
Request: TypeAlias = (
    prediction_pb2.PredictRequest
    | prediction_pb2.GetModelRequest
    | prediction_pb2.ListModelsRequest
    | HealthCheck
)
Step: TypeAlias = Request | Iterator[prediction_pb2.PredictRequest]
"""One request, to be sent its answer; or requests that may be under way at the same time, to be sent
their answers in order."""
Dialogue: TypeAlias = Generator[Step, Any, T]

KnownModels: TypeAlias = dict[tuple[str, str], ModelInfo]
"""What the server said about a (model, version as asked for): saves a call where X is a frame."""


def predict(known: KnownModels, ask: Question, X: Features, limits: Limits) -> Dialogue[Prediction]:
    """Ask for a prediction; a frame's columns are put in the model's order first."""
    names = features.column_names(X)
    if names is None:
        return (yield from _predict(known, ask, features.read_array(X), limits))

    info = known.get((ask.model, ask.version))
    if info is not None:
        # The latest version may be another one by now, with other features: its answer tells.
        try:
            matrix = features.read_frame(X, names, info.feature_names)
            prediction = yield from _predict(known, ask, matrix, limits)
        except InputError:
            pass
        else:
            if prediction.version == info.version:
                return prediction
    info = yield from _describe(known, ask)
    matrix = features.read_frame(X, names, info.feature_names)
    return (yield from _predict(known, replace(ask, version=info.version), matrix, limits))


def get_model(model: str, version: str | int) -> Dialogue[ModelInfo]:
    """Ask what a model is."""
    name, number = wire.named(model, version)
    answer = yield prediction_pb2.GetModelRequest(name=name, version=number)
    return wire.model_info(answer.model)


def list_models() -> Dialogue[list[ModelInfo]]:
    """Ask which models there are."""
    answer = yield prediction_pb2.ListModelsRequest()
    return [wire.model_info(model) for model in answer.models]


def is_ready(service: str) -> Dialogue[bool]:
    """Ask grpc.health.v1 whether the server, or one of its models, answers requests."""
    try:
        answer = yield foreign.health_check_request(service)
    except (NotFoundError, UnavailableError, DeadlineExceededError):
        return False
    return foreign.is_serving(answer)


def _predict(known: KnownModels, ask: Question, matrix: FloatArray, limits: Limits) -> Dialogue[Prediction]:
    """Ask for the rows of a matrix, in as many requests as they need."""
    rows, columns = matrix.shape
    outputs = None
    if wire.answers_per_row(ask):
        info = known.get((ask.model, ask.version)) or (yield from _describe(known, ask))
        outputs = len(info.output_names)
    at_once = wire.rows_per_request(ask, columns, outputs, limits)
    if rows <= at_once:
        return wire.prediction((yield wire.predict_request(ask, matrix)), rows)

    if ask.monte_carlo is not None and not ask.monte_carlo.HasField("seed"):
        ask = wire.with_seed(ask, secrets.randbits(64))
    parts = list(wire.split(matrix, at_once))
    first = wire.prediction((yield wire.predict_request(ask, parts[0])), len(parts[0]))
    # Whatever is published meanwhile, one version answers all of it.
    ask = replace(ask, version=first.version)
    answers = yield (wire.predict_request(ask, part) for part in parts[1:])
    rest = [wire.prediction(answer, len(part)) for answer, part in zip(answers, parts[1:], strict=True)]
    return wire.join([first, *rest])


def _describe(known: KnownModels, ask: Question) -> Dialogue[ModelInfo]:
    info = yield from get_model(ask.model, ask.version)
    known[ask.model, ask.version] = info
    return info
