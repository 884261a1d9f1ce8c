"""A bare client of the wire contract: what goes out and comes back, without the SDK's help."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import grpc
import numpy as np
from google.rpc.error_details_pb2 import BadRequest, RetryInfo
from grpc_status import rpc_status
from numpy.typing import NDArray

from dropserve.v1.prediction_pb2 import MonteCarlo, PredictRequest, PredictResponse
from dropserve.v1.prediction_pb2_grpc import PredictionServiceStub
from dropserve.v1.tensor_pb2 import Tensor

Floats = NDArray[np.float32]
TIMEOUT = 60.0


def tensor(array: Any) -> Tensor:
    values = np.asarray(array, "<f4")
    return Tensor(shape=values.shape, raw=values.tobytes())


def array_of(message: Tensor) -> Floats:
    return np.frombuffer(message.raw, "<f4").reshape(tuple(message.shape))


def request(model: str, rows: Any, monte_carlo: MonteCarlo | None = None, **fields: Any) -> PredictRequest:
    """A PredictRequest for rows [rows, features]."""
    inputs = rows if isinstance(rows, Tensor) else tensor(rows)
    return PredictRequest(model=model, inputs=inputs, monte_carlo=monte_carlo, **fields)


@dataclass(frozen=True)
class Refusal:
    """A status other than OK, the fields that its BadRequest names, and the delay of its RetryInfo."""

    code: grpc.StatusCode
    message: str
    fields: tuple[str, ...]
    retry_seconds: float | None


class Asker:
    """Calls PredictionService."""

    def __init__(self, channel: grpc.Channel) -> None:
        self.channel = channel
        self.stub = PredictionServiceStub(channel)

    def predict(
        self, model: str, rows: Any, monte_carlo: MonteCarlo | None = None, **fields: Any
    ) -> PredictResponse:
        return self.stub.Predict(request(model, rows, monte_carlo, **fields), timeout=TIMEOUT)

    def refused(self, message: PredictRequest, timeout: float = TIMEOUT) -> Refusal:
        """What the server says to a request that it must refuse."""
        try:
            answer = self.stub.Predict(message, timeout=timeout)
        except grpc.RpcError as error:
            return refusal_of(error)
        raise AssertionError(f"answered: {answer}")


def refusal_of(error: Any) -> Refusal:
    status = rpc_status.from_call(error)
    fields, retry_seconds = [], None
    for detail in status.details if status else ():
        bad_request, retry = BadRequest(), RetryInfo()
        if detail.Unpack(retry):
            retry_seconds = retry.retry_delay.ToTimedelta().total_seconds()
            continue
        assert detail.Unpack(bad_request)
        for violation in bad_request.field_violations:
            assert violation.description == error.details()
            fields.append(violation.field)
    return Refusal(error.code(), error.details(), tuple(fields), retry_seconds)
