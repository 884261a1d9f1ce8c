"""A real gRPC server with an imaginary model behind it, for the client's tests.

It needs nothing but the base install. The model "toy" takes features a, b, c and answers outputs u, v
with `answer_mean`; what Monte Carlo adds is arithmetic too, so that a test knows every value.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, NoReturn

import grpc
import numpy as np
from numpy.typing import NDArray

from dropserve.v1 import model_pb2, prediction_pb2, prediction_pb2_grpc
from dropserve.v1.tensor_pb2 import Tensor

Floats = NDArray[np.float32]
FEATURES = ("a", "b", "c")
OUTPUTS = ("u", "v")
WAIT_SECONDS = 20.0
"""Bounds every wait of a test."""


def answer_mean(rows: Any) -> Floats:
    """What the model answers to features [rows, 3] in the order a, b, c: columns a + 10 b and 100 c."""
    X = np.asarray(rows, np.float32)
    return np.stack([X[:, 0] + 10 * X[:, 1], 100 * X[:, 2]], axis=1)


def tensor(array: Any) -> Tensor:
    """A tensor message."""
    values = np.asarray(array, "<f4")
    return Tensor(shape=values.shape, raw=values.tobytes())


def model(name: str = "toy", version: str = "1", **fields: Any) -> model_pb2.ModelInfo:
    """What the server says about the imaginary model."""
    described: dict[str, Any] = {
        "task": model_pb2.TASK_REGRESSION,
        "feature_names": FEATURES,
        "output_names": OUTPUTS,
        "drop_rates": [0.1, 0.5],
        "provider": "CPUExecutionProvider",
        "is_default": True,
    }
    return model_pb2.ModelInfo(name=name, version=version, **(described | fields))


def respond(
    request: prediction_pb2.PredictRequest, info: model_pb2.ModelInfo
) -> prediction_pb2.PredictResponse:
    """The answer to a request: columns are matched by the model's own order of a, b and c."""
    X = np.frombuffer(request.inputs.raw, "<f4").reshape(tuple(request.inputs.shape))
    order = [list(info.feature_names).index(name) for name in FEATURES]
    mean = answer_mean(X[:, order])
    response = prediction_pb2.PredictResponse(
        model=request.model, version=info.version, request_id=request.request_id, mean=tensor(mean)
    )
    response.timings.queue_seconds, response.timings.compute_seconds = 0.25, 0.5
    if info.predicts_noise:
        response.aleatoric_variance.CopyFrom(tensor(np.full_like(mean, 4)))
    if request.interval and info.task == model_pb2.TASK_REGRESSION:
        response.interval_lower.CopyFrom(tensor(mean - request.interval))
        response.interval_upper.CopyFrom(tensor(mean + request.interval))
    elif request.interval:  # sets of one and of two classes in turn
        response.prediction_set.CopyFrom(tensor([[1, row % 2] for row in range(len(mean))]))
    if not request.HasField("monte_carlo"):
        return response
    asked = request.monte_carlo
    # Stands for the masks: rows that were answered with other masks have another number.
    masks = asked.seed % 1009
    response.passes = asked.passes
    response.variance.CopyFrom(tensor(np.full_like(mean, masks)))
    response.standard_error.CopyFrom(tensor(np.full_like(mean, 0.5)))
    if info.task in (model_pb2.TASK_BINARY, model_pb2.TASK_MULTICLASS):
        response.predictive_entropy.CopyFrom(tensor(mean[:, 0] + 2))
        response.expected_entropy.CopyFrom(tensor(mean[:, 0] + 1))
        response.mutual_information.CopyFrom(tensor(np.ones(len(mean))))
    if asked.quantiles:
        response.quantiles.CopyFrom(tensor([mean + quantile for quantile in asked.quantiles]))
    if asked.return_samples:
        response.samples.CopyFrom(tensor([mean + masks + number for number in range(asked.passes)]))
    return response


def status_details(*fields: str) -> bytes:
    """A google.rpc.Status with a BadRequest that names these fields, byte by byte."""
    violations = b"".join(
        _delimited(1, _delimited(1, field.encode()) + _delimited(2, b"why")) for field in fields
    )
    return b"\x08\x03" + _delimited(2, b"message") + _detail(b"BadRequest", violations)


def retry_details(seconds: float) -> bytes:
    """A google.rpc.Status with a RetryInfo that asks to wait so long, byte by byte."""
    whole = int(seconds)
    delay = bytes([1 << 3, *_varint(whole), 2 << 3, *_varint(round((seconds - whole) * 1e9))])
    return b"\x08\x08" + _delimited(2, b"message") + _detail(b"RetryInfo", _delimited(1, delay))


def _varint(number: int) -> bytes:
    return bytes([number & 127 | 128]) + _varint(number >> 7) if number > 127 else bytes([number])


def _detail(kind: bytes, message: bytes) -> bytes:
    return _delimited(3, _delimited(1, b"type.googleapis.com/google.rpc." + kind) + _delimited(2, message))


def _delimited(number: int, content: bytes) -> bytes:
    assert len(content) < 128
    return bytes([number << 3 | 2, len(content)]) + content


@dataclass(frozen=True)
class Failure:
    """A status to answer with, and its ``grpc-status-details-bin``."""

    code: grpc.StatusCode
    message: str = "as the test wants it"
    details: bytes = b""


@dataclass
class FakeService(prediction_pb2_grpc.PredictionServiceServicer):
    """Answers as it is told to.

    Attributes
    ----------
    models : list of ModelInfo
        What it serves; the one that is_default answers requests without a version.
    not_served : list of VersionStatus
        What it should serve and does not.
    failures : deque of Failure
        Each fails one Predict call, before any is answered.
    gate : Event
        Predict calls wait until it is set, or their caller has left.
    calls : list of message
        Every request it got.
    authorizations : list of str or None
        The "authorization" that came with each.
    announcements : list of dict
        What announced each in the metadata.
    knows_intervals : bool
        Whether it has heard of the field `interval`, which older servers have not.
    """

    models: list[model_pb2.ModelInfo] = field(default_factory=lambda: [model()])
    not_served: list[model_pb2.VersionStatus] = field(default_factory=list)
    failures: deque[Failure] = field(default_factory=deque)
    gate: threading.Event = field(default_factory=threading.Event)
    calls: list[Any] = field(default_factory=list)
    authorizations: list[str | None] = field(default_factory=list)
    announcements: list[dict[str, str]] = field(default_factory=list)
    knows_intervals: bool = True

    def __post_init__(self) -> None:
        self.gate.set()

    @property
    def predict_calls(self) -> list[prediction_pb2.PredictRequest]:
        return [call for call in self.calls if isinstance(call, prediction_pb2.PredictRequest)]

    def Predict(self, request: prediction_pb2.PredictRequest, context: Any) -> prediction_pb2.PredictResponse:
        self._note(request, context)
        while not self.gate.wait(0.01) and context.is_active():
            pass
        if self.failures:
            _fail(context, self.failures.popleft())
        if not self.knows_intervals:
            request.ClearField("interval")
        return respond(request, self._find(request.model, request.version, context))

    def PredictStream(self, request_iterator: Any, context: Any) -> NoReturn:
        raise NotImplementedError

    def GetModel(
        self, request: prediction_pb2.GetModelRequest, context: Any
    ) -> prediction_pb2.GetModelResponse:
        self._note(request, context)
        return prediction_pb2.GetModelResponse(model=self._find(request.name, request.version, context))

    def ListModels(
        self, request: prediction_pb2.ListModelsRequest, context: Any
    ) -> prediction_pb2.ListModelsResponse:
        self._note(request, context)
        return prediction_pb2.ListModelsResponse(models=self.models, not_served=self.not_served)

    def _note(self, request: Any, context: Any) -> None:
        self.calls.append(request)
        metadata = dict(context.invocation_metadata())
        self.authorizations.append(metadata.get("authorization"))
        self.announcements.append({key: text for key, text in metadata.items() if "dropserve-" in key})

    def _find(self, name: str, version: str, context: Any) -> model_pb2.ModelInfo:
        for candidate in self.models:
            if candidate.name == name and (
                candidate.version == version or (not version and candidate.is_default)
            ):
                return candidate
        return _fail(context, Failure(grpc.StatusCode.NOT_FOUND, f"there is no model {name!r} {version!r}"))


@dataclass
class FullService(FakeService):
    """Answers rows of zeros; for all others its queue is full.

    Attributes
    ----------
    later : float
        Seconds after which it says to come back.
    refused : list of message
        The requests that it refused.
    """

    later: float = 3 * WAIT_SECONDS
    refused: list[prediction_pb2.PredictRequest] = field(default_factory=list)

    def Predict(self, request: prediction_pb2.PredictRequest, context: Any) -> prediction_pb2.PredictResponse:
        if np.frombuffer(request.inputs.raw, "<f4").any():
            self.refused.append(request)
            details = retry_details(self.later)
            _fail(context, Failure(grpc.StatusCode.RESOURCE_EXHAUSTED, "full", details))
        return super().Predict(request, context)


class HealthService(grpc.GenericRpcHandler):
    """grpc.health.v1.Health by hand: says `status`, and that it knows nobody where that is None."""

    SERVING, NOT_SERVING = b"\x08\x01", b"\x08\x02"

    def __init__(self, status: bytes | None = SERVING) -> None:
        self.status = status
        self.asked: list[bytes] = []
        self.closing = threading.Event()

    def service(self, details: Any) -> Any:
        if details.method == "/grpc.health.v1.Health/Check":
            return grpc.unary_unary_rpc_method_handler(self._check)
        if details.method == "/grpc.health.v1.Health/Watch":
            return grpc.unary_stream_rpc_method_handler(self._watch)
        return None

    def _check(self, request: bytes, context: Any) -> bytes:
        self.asked.append(request)
        if self.status is None:
            _fail(context, Failure(grpc.StatusCode.NOT_FOUND))
        return self.status

    def _watch(self, request: bytes, context: Any) -> Iterator[bytes]:
        yield self.status or self.NOT_SERVING
        context.add_callback(self.closing.set)
        self.closing.wait(WAIT_SECONDS)


@contextmanager
def serving(
    service: FakeService | None,
    *,
    health: HealthService | None = None,
    address: str = "127.0.0.1:0",
    credentials: grpc.ServerCredentials | None = None,
) -> Iterator[str]:
    """A server on loopback; gives its ``HOST:PORT``."""
    with ThreadPoolExecutor(max_workers=16) as pool:
        server = grpc.server(pool, options=[("grpc.so_reuseport", 0)])
        if service is not None:
            prediction_pb2_grpc.add_PredictionServiceServicer_to_server(service, server)
        if health is not None:
            server.add_generic_rpc_handlers((health,))
        port = (
            server.add_insecure_port(address)
            if credentials is None
            else server.add_secure_port(address, credentials)
        )
        server.start()
        try:
            yield f"127.0.0.1:{port}"
        finally:
            if service is not None:
                service.gate.set()
            if health is not None:
                health.closing.set()
            server.stop(grace=None).wait(WAIT_SECONDS)


def _fail(context: Any, failure: Failure) -> NoReturn:
    if failure.details:
        context.set_trailing_metadata((("grpc-status-details-bin", failure.details),))
    context.abort(failure.code, failure.message)
    raise AssertionError("abort raises")
