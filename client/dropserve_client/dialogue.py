"""What is asked of a server, step by step, without doing it.

A dialogue is a generator: it yields the next request, is sent the answer, and returns the result. The
clients only carry messages: `Client` waits for each answer, `AsyncClient` awaits it. Errors of a call
are thrown into the dialogue. (The idea is psycopg's.)
"""

from __future__ import annotations

import secrets
from collections.abc import Generator, Iterator
from dataclasses import dataclass, replace
from typing import Any, TypeAlias, TypeVar

import grpc

from dropserve.v1 import administration_pb2, prediction_pb2
from dropserve_client import features, foreign, wire
from dropserve_client.errors import (
    CallCancelledError,
    DeadlineExceededError,
    InputError,
    LoadFailedError,
    MonteCarloUnavailable,
    NotFoundError,
    ServerError,
    UnavailableError,
)
from dropserve_client.types import Features, FloatArray, ModelInfo, Prediction, VersionStatus
from dropserve_client.wire import Limits, Question

T = TypeVar("T")

HealthCheck: TypeAlias = bytes
Request: TypeAlias = (
    prediction_pb2.PredictRequest
    | prediction_pb2.GetModelRequest
    | prediction_pb2.ListModelsRequest
    | administration_pb2.ListVersionsRequest
    | administration_pb2.LoadModelRequest
    | administration_pb2.UnloadModelRequest
    | administration_pb2.ReloadRepositoryRequest
    | HealthCheck
)


@dataclass(frozen=True, slots=True)
class Pause:
    """So many seconds to wait, and be sent nothing."""

    seconds: float


Step: TypeAlias = Request | Iterator[prediction_pb2.PredictRequest] | Pause
"""One request, to be sent its answer; or requests that may be under way at the same time, to be sent
their answers in order; or a pause."""
Dialogue: TypeAlias = Generator[Step, Any, T]

KnownModels: TypeAlias = dict[tuple[str, str], ModelInfo]
"""What the server said about a (model, version as asked for): saves a call where X is a frame."""


Metadata: TypeAlias = tuple[tuple[str, str], ...] | None

_RESTARTS = 3
_ASK_AGAIN_SECONDS = 0.1  # a server that starts


class _Replaced(Exception):
    """The version that has begun to answer is not served any more."""

    def __init__(self, error: NotFoundError) -> None:
        self.error = error


def metadata(request: Request, always: Metadata) -> Metadata:
    """What goes with a request: what goes with every one, and what announces it."""
    if isinstance(request, prediction_pb2.PredictRequest) and (announced := wire.announcement(request)):
        return (*(always or ()), *announced)
    return always


def predict(known: KnownModels, ask: Question, X: Features, limits: Limits) -> Dialogue[Prediction]:
    """Ask for a prediction; frames, text and missing values are read by the model's columns first.

    Where the version that began to answer is unloaded before it has answered all, another begins anew.
    """
    for _ in range(_RESTARTS):
        try:
            return (yield from _predict_frame_or_array(known, ask, X, limits))
        except _Replaced:
            pass
    try:
        return (yield from _predict_frame_or_array(known, ask, X, limits))
    except _Replaced as replaced:
        raise replaced.error from None


def _predict_frame_or_array(
    known: KnownModels, ask: Question, X: Features, limits: Limits
) -> Dialogue[Prediction]:
    names = features.column_names(X)
    if names is None:
        try:
            matrix = features.read_array(X)
        except features.ColumnsNeeded:
            pass
        else:
            return (yield from _predict(known, ask, matrix, limits))

    def read(info: ModelInfo) -> FloatArray:
        if names is None:
            return features.read_array(X, info.columns)
        return features.read_frame(X, names, info.feature_names, info.columns)

    info = known.get((ask.model, ask.version))
    if info is not None:
        # The latest version may be another one by now, with other features: its answer tells.
        try:
            matrix = read(info)
            prediction = yield from _predict(known, ask, matrix, limits)
        except InputError:
            pass
        else:
            if prediction.version == info.version:
                return prediction
    info = yield from _describe(known, ask)
    matrix = read(info)
    try:
        return (yield from _predict(known, replace(ask, version=info.version), matrix, limits))
    except NotFoundError as error:
        raise error if ask.version else _Replaced(error) from None


def get_model(model: str, version: str | int) -> Dialogue[ModelInfo]:
    """Ask what a model is."""
    name, number = wire.named(model, version)
    answer = yield prediction_pb2.GetModelRequest(name=name, version=number)
    return wire.model_info(answer.model)


def list_models() -> Dialogue[list[ModelInfo]]:
    """Ask which models there are."""
    answer = yield prediction_pb2.ListModelsRequest()
    return [wire.model_info(model) for model in answer.models]


def list_not_served() -> Dialogue[list[VersionStatus]]:
    """Ask which versions should be served and are not."""
    answer = yield prediction_pb2.ListModelsRequest()
    return wire.version_statuses(answer.not_served)


def list_versions() -> Dialogue[list[VersionStatus]]:
    """Ask an admin port what is in the repository."""
    return (yield from _ordered(administration_pb2.ListVersionsRequest()))


def load_model(model: str, version: str | int) -> Dialogue[list[VersionStatus]]:
    """Have an admin port load a version, or what a model's version policy wants."""
    name, number = wire.named(model, version)
    return (yield from _ordered(administration_pb2.LoadModelRequest(name=name, version=number)))


def unload_model(model: str, version: str | int) -> Dialogue[list[VersionStatus]]:
    """Have an admin port unload a version, or a model."""
    name, number = wire.named(model, version)
    return (yield from _ordered(administration_pb2.UnloadModelRequest(name=name, version=number)))


def reload_repository() -> Dialogue[list[VersionStatus]]:
    """Have an admin port look through the repository."""
    return (yield from _ordered(administration_pb2.ReloadRepositoryRequest()))


def _ordered(order: Request) -> Dialogue[list[VersionStatus]]:
    try:
        answer = yield order
    except MonteCarloUnavailable as error:  # what this status means of predictions
        raise LoadFailedError(str(error), code=error.code) from error
    except ServerError as error:
        if error.code is not grpc.StatusCode.UNIMPLEMENTED:
            raise
        raise ServerError(f"{error}; is this its admin port?", code=error.code) from error
    return wire.version_statuses(answer.versions)


def is_ready(service: str) -> Dialogue[bool]:
    """Ask grpc.health.v1 whether the server, or one of its models, answers requests."""
    try:
        answer = yield foreign.health_check_request(service)
    except (NotFoundError, UnavailableError, DeadlineExceededError):
        return False
    return foreign.is_serving(answer)


def wait_until_ready(service: str) -> Dialogue[None]:
    """Ask grpc.health.v1 until the server, or one of its models, answers requests."""
    why = ""
    try:
        while True:
            try:
                if foreign.is_serving((yield foreign.health_check_request(service))):
                    return
                why = "it says that it is not serving"
            except (NotFoundError, UnavailableError, CallCancelledError) as error:
                why = str(error)
            yield Pause(_ASK_AGAIN_SECONDS)
    except DeadlineExceededError as error:
        who = f"model {service!r}" if service else "the server"
        raise DeadlineExceededError(f"{who} is not ready: {why or error}", code=error.code) from error


def _predict(known: KnownModels, ask: Question, matrix: FloatArray, limits: Limits) -> Dialogue[Prediction]:
    """Ask for the rows of a matrix, in as many requests as they need."""
    rows, columns = matrix.shape
    outputs = None
    if wire.answers_per_row(ask):
        info = known.get((ask.model, ask.version)) or (yield from _describe(known, ask))
        outputs = len(info.output_names)
    at_once = wire.rows_per_request(ask, columns, outputs, limits)
    if rows <= at_once:
        return _read(ask, (yield wire.predict_request(ask, matrix)), matrix)

    if ask.monte_carlo is not None and not ask.monte_carlo.HasField("seed"):
        ask = wire.with_seed(ask, secrets.randbits(64))
    parts = list(wire.split(matrix, at_once))
    first = _read(ask, (yield wire.predict_request(ask, parts[0])), parts[0])
    # Whatever is published meanwhile, one version answers all of it.
    one = replace(ask, version=first.version)
    try:
        answers = yield (wire.predict_request(one, part) for part in parts[1:])
    except NotFoundError as error:
        raise error if ask.version else _Replaced(error) from None
    rest = [_read(ask, answer, part) for answer, part in zip(answers, parts[1:], strict=True)]
    return wire.join([first, *rest])


def _read(ask: Question, answer: prediction_pb2.PredictResponse, part: FloatArray) -> Prediction:
    return wire.prediction(answer, len(part), with_interval=bool(ask.interval))


def _describe(known: KnownModels, ask: Question) -> Dialogue[ModelInfo]:
    info = yield from get_model(ask.model, ask.version)
    known[ask.model, ask.version] = info
    return info
