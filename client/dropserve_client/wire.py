"""Messages: requests from plain values, plain values from answers. Pure, the core of both clients."""

from __future__ import annotations

import math
import operator
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from dropserve.v1 import model_pb2, prediction_pb2
from dropserve.v1.tensor_pb2 import Tensor
from dropserve_client.errors import InputError, ProtocolError
from dropserve_client.types import (
    Column,
    ColumnKind,
    FloatArray,
    Masks,
    ModelInfo,
    Prediction,
    Task,
    Timings,
    VersionState,
    VersionStatus,
)

MAX_PASSES: Final = 2**32 - 1
MAX_SEED: Final = 2**64 - 1
_FLOAT32: Final = np.dtype("<f4")

_MASKS: Final[dict[str, prediction_pb2.Masks.ValueType]] = {
    "stratified": prediction_pb2.MASKS_STRATIFIED,
    "independent": prediction_pb2.MASKS_INDEPENDENT,
}
_TASKS: Final[dict[int, Task]] = {
    model_pb2.TASK_REGRESSION: "regression",
    model_pb2.TASK_BINARY: "binary",
    model_pb2.TASK_MULTICLASS: "multiclass",
}
_KINDS: Final[dict[int, ColumnKind]] = {
    model_pb2.COLUMN_KIND_NUMBER: "number",
    model_pb2.COLUMN_KIND_CATEGORY: "category",
}
_STATES: Final[dict[int, VersionState]] = {
    model_pb2.VERSION_STATE_LOADING: "loading",
    model_pb2.VERSION_STATE_SERVING: "serving",
    model_pb2.VERSION_STATE_FAILED: "failed",
    model_pb2.VERSION_STATE_UNLOADED: "unloaded",
}
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


@dataclass(frozen=True, slots=True)
class Question:
    """Everything a request says beside its rows, checked.

    `monte_carlo` is None for deterministic mode, `interval` 0 for none.
    """

    model: str
    version: str
    request_id: str
    monte_carlo: prediction_pb2.MonteCarlo | None
    interval: float = 0.0


@dataclass(frozen=True, slots=True)
class Limits:
    """What one request may hold."""

    bytes: int
    rows: int

    def __post_init__(self) -> None:
        for name, value in (("request_bytes", self.bytes), ("request_rows", self.rows)):
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise InputError(f"{name} must be a positive integer, not {value!r}")


def question(
    model: str,
    *,
    version: str | int = "",
    passes: int | None = None,
    seed: int | None = None,
    quantiles: Sequence[float] = (),
    return_samples: bool = False,
    masks: Masks | None = None,
    mean_tolerance: float | None = None,
    std_tolerance: float | None = None,
    interval: float | None = None,
    request_id: str = "",
) -> Question:
    """Check the options of a prediction.

    Only what the wire can't carry is refused; the server knows its own limits.

    Raises
    ------
    InputError
        For an option of the wrong type or range, and for Monte Carlo options without `passes`.
    """
    model, version = named(model, version)
    request_id = _text(request_id, "request_id")
    wanted = _quantiles(quantiles)
    monte_carlo = None
    if passes is not None:
        monte_carlo = prediction_pb2.MonteCarlo(
            passes=integer(passes, "passes", 1, MAX_PASSES, within="monte_carlo."),
            seed=None if seed is None else integer(seed, "seed", 0, MAX_SEED, within="monte_carlo."),
            quantiles=wanted,
            return_samples=bool(return_samples),
            masks=_masks(masks),
            mean_tolerance=_tolerance(mean_tolerance, "mean_tolerance"),
            std_tolerance=_tolerance(std_tolerance, "std_tolerance"),
        )
    else:
        given = {"seed": seed is not None, "quantiles": bool(wanted)}
        given |= {"return_samples": bool(return_samples), "masks": masks is not None}
        given |= {"mean_tolerance": mean_tolerance is not None, "std_tolerance": std_tolerance is not None}
        idle = [name for name, is_given in given.items() if is_given]
        if idle:
            raise InputError(
                f"{idle[0]} is an option of Monte Carlo predictions: give passes as well, e.g. passes=100",
                field=f"monte_carlo.{idle[0]}",
            )
    return Question(model, version, request_id, monte_carlo, _interval(interval))


def named(model: str, version: str | int) -> tuple[str, str]:
    """A model's name and version as the wire writes them."""
    if not model:
        raise InputError("model must be the name of a model", field="model")
    if isinstance(version, bool) or not isinstance(version, str | int):
        raise InputError(f"version must be a positive integer or empty, not {version!r}", field="version")
    return _text(model, "model"), _text(str(version), "version")


def integer(value: object, name: str, low: int, high: int, within: str = "") -> int:
    """`value` as an integer within bounds; booleans are none.

    `within` is what the field's name begins with in the request, e.g. "monte_carlo.".
    """
    try:
        number = -1 if isinstance(value, bool) else operator.index(value)  # type: ignore[arg-type]
    except TypeError:
        number = -1
    if not low <= number <= high:
        raise InputError(
            f"{name} must be an integer from {low} to {high}, not {value!r}", field=within + name
        )
    return number


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


def with_seed(ask: Question, seed: int) -> Question:
    """The same question with its masks fixed, so that the parts of a split request share them."""
    monte_carlo = prediction_pb2.MonteCarlo()
    monte_carlo.CopyFrom(ask.monte_carlo or monte_carlo)
    monte_carlo.seed = seed
    return replace(ask, monte_carlo=monte_carlo)


def prediction(response: prediction_pb2.PredictResponse, rows: int) -> Prediction:
    """What a server answered to a request of so many `rows`.

    Raises
    ------
    ProtocolError
        Where a tensor's bytes contradict its shape, or the answer has other rows than the request.
    """
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


def model_info(message: model_pb2.ModelInfo) -> ModelInfo:
    """What a server says about a model."""
    return ModelInfo(
        name=message.name,
        version=message.version,
        is_default=message.is_default,
        task=_TASKS.get(message.task, "unspecified"),
        feature_names=tuple(message.feature_names),
        output_names=tuple(message.output_names),
        drop_rates=tuple(message.drop_rates),
        monte_carlo_unavailable=message.monte_carlo_unavailable or None,
        predicts_noise=message.predicts_noise,
        provider=message.provider,
        columns=tuple(
            Column(_KINDS.get(column.kind, "unspecified"), tuple(column.categories), column.accepts_missing)
            for column in message.columns
        ),
        calibrated=message.calibrated,
    )


def version_statuses(messages: Iterable[model_pb2.VersionStatus]) -> list[VersionStatus]:
    """How versions stand, as a server says."""
    return [
        VersionStatus(
            message.name,
            message.version,
            _STATES.get(message.state, "unspecified"),
            message.reason,
            message.is_default,
        )
        for message in messages
    ]


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


def _text(value: object, name: str) -> str:
    if isinstance(value, str):
        try:
            value.encode()
        except UnicodeEncodeError:  # half a surrogate pair
            pass
        else:
            return value
    raise InputError(f"{name} must be text that UTF-8 can write, not {value!r}", field=name)


def _quantiles(quantiles: Sequence[float]) -> list[float]:
    try:
        return [float(quantile) for quantile in quantiles]
    except (TypeError, ValueError):
        raise InputError(
            f"quantiles must be numbers within [0, 1], not {quantiles!r}", field="monte_carlo.quantiles"
        ) from None


def _tolerance(tolerance: float | None, name: str) -> float:
    """The wire's 0 is no tolerance, so a 0 that was given is refused here."""
    if tolerance is None:
        return 0.0
    try:
        number = float(tolerance)
    except (TypeError, ValueError):
        number = math.nan
    if not 0.0 < number < math.inf:
        raise InputError(f"{name} must be a number above 0, not {tolerance!r}", field=f"monte_carlo.{name}")
    return number


def _interval(interval: float | None) -> float:
    """The wire's 0 is no interval, so a 0 that was given is refused here."""
    if interval is None:
        return 0.0
    try:
        coverage = float(interval)
    except (TypeError, ValueError):
        coverage = math.nan
    if not 0.0 < coverage < 1.0:
        raise InputError(
            f"interval must be a coverage above 0 and below 1, e.g. 0.9, not {interval!r}", field="interval"
        )
    return coverage


def _masks(masks: Masks | None) -> prediction_pb2.Masks.ValueType:
    if masks is None:
        return prediction_pb2.MASKS_UNSPECIFIED
    if masks not in _MASKS:
        raise InputError(
            f"masks must be 'stratified' or 'independent', not {masks!r}", field="monte_carlo.masks"
        )
    return _MASKS[masks]
