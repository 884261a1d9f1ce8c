"""Plain values from a server's answers to predictions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from dropserve.v1 import prediction_pb2
from dropserve.v1.tensor_pb2 import Tensor
from dropserve_client.errors import ProtocolError
from dropserve_client.types import FloatArray, Prediction, Timings

_FLOAT32: Final = np.dtype("<f4")
_ROW_AXIS: Final = {
    "mean": 0,
    "variance": 0,
    "standard_error": 0,
    "std_standard_error": 0,
    "aleatoric_variance": 0,
    "predictive_entropy": 0,
    "expected_entropy": 0,
    "mutual_information": 0,
    "quantiles": 1,
    "samples": 1,
    "interval_lower": 0,
    "interval_upper": 0,
    "prediction_set": 0,
}
"""The array fields of an answer, and which of their axes counts the rows."""
_DETERMINISTIC_FIELDS: Final = ("aleatoric_variance", "interval_lower", "interval_upper", "prediction_set")
_MONTE_CARLO_FIELDS: Final = tuple(name for name in _ROW_AXIS if name != "mean")


def prediction(
    response: prediction_pb2.PredictResponse, rows: int, *, with_interval: bool = False
) -> Prediction:
    """What a server answered to a request of so many `rows`.

    Raises
    ------
    ProtocolError
        Where a tensor's bytes contradict its shape, or the answer has other rows than the request, or not the
        interval that was asked for.
    """
    if with_interval and not (response.HasField("interval_lower") or response.HasField("prediction_set")):
        # To a server that does not know the field, nothing was asked.
        raise ProtocolError("the answer has no interval: the server is an older one, that knows of none")
    fields: dict[str, Any] = {
        name: _array(getattr(response, name), name)
        for name in (_MONTE_CARLO_FIELDS if response.passes else _DETERMINISTIC_FIELDS)
        if response.HasField(name)  # type: ignore[arg-type]
    }
    fields["mean"] = _array(response.mean, "mean")
    for name, array in fields.items():
        axis = _ROW_AXIS[name]
        if array.ndim <= axis or array.shape[axis] != rows:
            raise ProtocolError(f"the server's answer to {rows} rows has a {name} of shape {array.shape}")
    timings = response.timings
    return Prediction(
        model=response.model,
        version=response.version,
        request_id=response.request_id,
        passes=response.passes,
        row_passes=_row_passes(response, rows),
        timings=Timings(timings.queue_seconds, timings.compute_seconds),
        **fields,
    )


def join(parts: Sequence[Prediction]) -> Prediction:
    """One prediction from those of consecutive rows, which the same version has answered."""
    first = parts[0]
    if len(parts) == 1:
        return first
    adaptive = first.row_passes is not None
    if any(part.version != first.version or not (adaptive or part.passes == first.passes) for part in parts):
        raise ProtocolError("the parts of the request were answered by different versions or passes")
    arrays: dict[str, Any] = {"passes": max(part.passes for part in parts)}
    for name, axis in (*_ROW_AXIS.items(), ("row_passes", 0)):
        pieces = [getattr(part, name) for part in parts]
        if all(piece is not None for piece in pieces):
            arrays[name] = np.concatenate(pieces, axis=axis)
    timings = Timings(
        sum(part.timings.queue_seconds for part in parts),
        sum(part.timings.compute_seconds for part in parts),
    )
    return replace(first, timings=timings, **arrays)


def _array(tensor: Tensor, name: str) -> FloatArray:
    raw, shape = tensor.raw, tuple(tensor.shape)
    try:
        # bytes would make a read-only array; a bytearray costs one copy and makes it the caller's own.
        array: FloatArray = np.ndarray(shape, _FLOAT32, bytearray(raw))
    except (TypeError, ValueError):  # too few bytes, or a negative size
        array = np.empty(0, _FLOAT32)
    if array.shape != shape or array.nbytes != len(raw):
        raise ProtocolError(f"the server's answer has a {name} of shape {shape} in {len(raw)} bytes")
    return array if _FLOAT32.isnative else array.astype(np.float32)


def _row_passes(response: prediction_pb2.PredictResponse, rows: int) -> NDArray[np.int64] | None:
    counts = np.array(response.row_passes, np.int64)
    if len(counts) not in (0, rows):
        raise ProtocolError(f"the server's answer to {rows} rows has {len(counts)} row_passes")
    return counts if len(counts) else None
