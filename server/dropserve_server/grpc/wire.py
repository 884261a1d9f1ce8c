"""Messages to arrays and back. Pure: nothing here waits, computes a prediction, or knows of a server."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

import numpy as np

from dropserve.v1 import model_pb2, prediction_pb2, tensor_pb2
from dropserve_models.columns import Kind
from dropserve_models.prediction import FloatArray, Masks, MonteCarloOptions, Prediction, Task
from dropserve_server.errors import InvalidRequest
from dropserve_server.predictor import PredictionJob
from dropserve_server.served import ServedModel, State, VersionStatus

MAX_REQUEST_ID_BYTES = 256

_FLOAT = np.dtype("<f4")

_MASKS: dict[int, Masks] = {
    prediction_pb2.MASKS_UNSPECIFIED: "stratified",
    prediction_pb2.MASKS_STRATIFIED: "stratified",
    prediction_pb2.MASKS_INDEPENDENT: "independent",
}

_TASKS: dict[Task, model_pb2.Task.ValueType] = {
    "regression": model_pb2.TASK_REGRESSION,
    "binary": model_pb2.TASK_BINARY,
    "multiclass": model_pb2.TASK_MULTICLASS,
}

_KINDS: dict[Kind, model_pb2.ColumnKind.ValueType] = {
    "number": model_pb2.COLUMN_KIND_NUMBER,
    "category": model_pb2.COLUMN_KIND_CATEGORY,
}

_STATES: dict[State, model_pb2.VersionState.ValueType] = {
    "loading": model_pb2.VERSION_STATE_LOADING,
    "serving": model_pb2.VERSION_STATE_SERVING,
    "failed": model_pb2.VERSION_STATE_FAILED,
    "unloaded": model_pb2.VERSION_STATE_UNLOADED,
}


def read_features(tensor: tensor_pb2.Tensor) -> FloatArray:
    """The features [rows, features] that a tensor holds; from `raw` without a copy.

    Raises
    ------
    InvalidRequest
        The shape is not two-dimensional, the elements are not as many as it says, or both `raw` and
        `values` are set.
    """
    shape = tuple(tensor.shape)
    check_shape(shape)
    elements = prod(shape)
    raw = tensor.raw
    if not tensor.values:
        if len(raw) != elements * _FLOAT.itemsize:
            raise InvalidRequest(
                "inputs.raw",
                f"inputs.raw has {len(raw)} bytes; shape {list(shape)} of 4-byte floats needs "
                f"{elements * _FLOAT.itemsize}",
            )
        features = np.frombuffer(raw, _FLOAT)
    elif raw:
        raise InvalidRequest("inputs", "inputs has both raw and values; set one of them")
    else:
        if len(tensor.values) != elements:
            raise InvalidRequest(
                "inputs.values",
                f"inputs.values has {len(tensor.values)} elements; shape {list(shape)} needs {elements}",
            )
        features = np.fromiter(tensor.values, _FLOAT, elements)
    return features.astype(np.float32, copy=False).reshape(shape)


def check_shape(shape: Sequence[int]) -> None:
    """Raise InvalidRequest where no array of features can have this shape."""
    if len(shape) != 2:
        raise InvalidRequest(
            "inputs.shape", f"inputs has {len(shape)} dimensions; it must have two: [rows, features]"
        )
    # No message holds as many; and beside a dimension of 0 the number of elements would not tell.
    if not 0 <= min(shape) <= max(shape) < 2**31:
        raise InvalidRequest(
            "inputs.shape", f"inputs has shape {list(shape)}; no dimension can be negative, or 2**31 or more"
        )


def read_monte_carlo(message: prediction_pb2.MonteCarlo, default_passes: int) -> MonteCarloOptions:
    """The options of Monte Carlo mode; their ranges are checked where the limits are known.

    Raises
    ------
    InvalidRequest
        `masks` is a value this server does not know.
    """
    masks = _MASKS.get(message.masks)
    if masks is None:
        raise InvalidRequest(
            "monte_carlo.masks",
            f"masks is {message.masks}; this server knows MASKS_STRATIFIED (1) and MASKS_INDEPENDENT (2)",
        )
    return MonteCarloOptions(
        passes=message.passes or default_passes,
        seed=message.seed if message.HasField("seed") else None,
        quantiles=tuple(message.quantiles),
        return_samples=message.return_samples,
        masks=masks,
        mean_tolerance=message.mean_tolerance or None,
        std_tolerance=message.std_tolerance or None,
    )


def check_request_id(request_id: str) -> None:
    """Raise InvalidRequest where a request's id is too long."""
    # No character takes more than four bytes, so most ids need not be encoded to know.
    if len(request_id) * 4 > MAX_REQUEST_ID_BYTES and len(request_id.encode()) > MAX_REQUEST_ID_BYTES:
        raise InvalidRequest("request_id", f"request_id is longer than {MAX_REQUEST_ID_BYTES} bytes")


def write_answer(request_id: str, job: PredictionJob) -> prediction_pb2.PredictResponse:
    """The answer to a request, from its finished job."""
    served, prediction = job.served, job.result
    assert prediction is not None
    response = prediction_pb2.PredictResponse(
        model=served.name, version=served.version, request_id=request_id, passes=prediction.passes
    )
    timings = response.timings
    timings.queue_seconds = job.queue_seconds
    timings.compute_seconds = job.compute_seconds
    _write_tensor(response.mean, prediction.mean)
    if prediction.aleatoric_variance is not None:
        _write_tensor(response.aleatoric_variance, prediction.aleatoric_variance)
    if job.options is not None:
        _write_spread(response, prediction)
    return response


def write_interval(response: prediction_pb2.PredictResponse, job: PredictionJob) -> None:
    """Put the interval, or the prediction set, of a finished job into its answer."""
    prediction = job.result
    assert prediction is not None
    for message, array in (
        (response.interval_lower, prediction.interval_lower),
        (response.interval_upper, prediction.interval_upper),
        (response.prediction_set, prediction.prediction_set),
    ):
        if array is not None:
            _write_tensor(message, array)


def write_model(served: ServedModel, is_default: bool) -> model_pb2.ModelInfo:
    """What is told about a model."""
    info = served.info
    return model_pb2.ModelInfo(
        name=served.name,
        version=served.version,
        is_default=is_default,
        task=_TASKS[info.task],
        feature_names=info.feature_names,
        output_names=info.output_names,
        drop_rates=info.drop_rates,
        monte_carlo_unavailable=served.model.monte_carlo_unavailable or "",
        predicts_noise=info.predicts_noise,
        provider=info.provider,
        columns=[
            model_pb2.Column(
                kind=_KINDS[column.kind],
                categories=column.categories,
                accepts_missing=column.accepts_missing,
            )
            for column in info.columns
        ],
        calibrated=info.calibrated,
    )


def write_status(status: VersionStatus, reason: str = "") -> model_pb2.VersionStatus:
    """What is told about a version in the repository; the `reason` may name files, so not to everybody."""
    return model_pb2.VersionStatus(
        name=status.name,
        version=str(status.version),
        state=_STATES[status.state],
        reason=reason,
        is_default=status.is_default,
    )


def _write_spread(response: prediction_pb2.PredictResponse, prediction: Prediction) -> None:
    for message, array in (
        (response.variance, prediction.variance),
        (response.standard_error, prediction.standard_error),
        (response.std_standard_error, prediction.std_standard_error),
        (response.predictive_entropy, prediction.predictive_entropy),
        (response.expected_entropy, prediction.expected_entropy),
        (response.mutual_information, prediction.mutual_information),
        (response.quantiles, prediction.quantiles),
        (response.samples, prediction.samples),
    ):
        if array is not None:
            _write_tensor(message, array)
    if prediction.row_passes is not None:
        response.row_passes.extend(prediction.row_passes.tolist())


def _write_tensor(message: tensor_pb2.Tensor, array: FloatArray) -> None:
    message.shape.extend(array.shape)
    message.raw = array.astype(_FLOAT, copy=False).tobytes()
