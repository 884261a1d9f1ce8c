"""Requests, and how many rows each may hold."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

import numpy as np

from dropserve.v1 import prediction_pb2
from dropserve.v1.tensor_pb2 import Tensor
from dropserve_client.errors import InputError
from dropserve_client.types import FloatArray
from dropserve_client.wire.options import Question

ANNOUNCED_BYTES: Final = 2**14
"""Features of at least so many bytes are announced. Fewer are read as fast as an announcement."""

_FLOAT32: Final = np.dtype("<f4")


@dataclass(frozen=True, slots=True)
class Limits:
    """What one request may hold."""

    bytes: int
    rows: int

    def __post_init__(self) -> None:
        for name, value in (("request_bytes", self.bytes), ("request_rows", self.rows)):
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise InputError(f"{name} must be a positive integer, not {value!r}")


def predict_request(ask: Question, features: FloatArray) -> prediction_pb2.PredictRequest:
    """The request for `features` [rows, features]."""
    return prediction_pb2.PredictRequest(
        model=ask.model,
        version=ask.version,
        request_id=ask.request_id,
        inputs=Tensor(shape=features.shape, raw=features.astype(_FLOAT32, copy=False).tobytes()),
        monte_carlo=ask.monte_carlo,
        interval=ask.interval,
    )


def announcement(request: prediction_pb2.PredictRequest) -> tuple[tuple[str, str], ...]:
    """The metadata that tell a server of a large request before it has come; none of others.

    A server that has no room for it then refuses it without reading it. See `PredictionService.Predict`.
    """
    rows, columns = request.inputs.shape
    names = request.model + request.version
    if rows * columns * _FLOAT32.itemsize < ANNOUNCED_BYTES or not (names.isascii() and names.isprintable()):
        return ()
    told = [("dropserve-model", request.model), ("dropserve-rows", str(rows))]
    if request.version:
        told.append(("dropserve-version", request.version))
    if request.HasField("monte_carlo"):
        if request.monte_carlo.mean_tolerance or request.monte_carlo.std_tolerance:
            return ()  # they may stop early: nobody knows how many passes they take
        told.append(("dropserve-passes", str(request.monte_carlo.passes)))
    return tuple(told)


def rows_per_request(ask: Question, features: int, outputs: int | None, limits: Limits) -> int:
    """How many rows keep a request, and its answer's samples and quantiles, within the limits.

    `outputs` is the model's number of outputs; None where the answer's size doesn't matter.
    At least 1: the server refuses what is too large even so.
    """
    row_bytes = _FLOAT32.itemsize * features
    if outputs is not None:
        row_bytes = max(row_bytes, _FLOAT32.itemsize * outputs * answers_per_row(ask))
    return max(1, min(limits.rows, limits.bytes // row_bytes))


def answers_per_row(ask: Question) -> int:
    """How many values an answer carries for each row and output because samples or quantiles were asked."""
    if ask.monte_carlo is None:
        return 0
    samples = ask.monte_carlo.passes if ask.monte_carlo.return_samples else 0
    return samples + len(ask.monte_carlo.quantiles)


def split(features: FloatArray, rows: int) -> Iterator[FloatArray]:
    """Parts of at most `rows` rows, in order."""
    return (features[start : start + rows] for start in range(0, len(features), rows))
