"""Messages of the Open Inference Protocol to arrays and back. Pure, as `wire` is for our own protocol."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from reprlib import repr as bounded
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dropserve.inference.service_pb2 import ModelInferRequest, ModelInferResponse
from dropserve_models.prediction import FloatArray, ModelInfo, MonteCarloOptions
from dropserve_server.errors import InvalidRequest
from dropserve_server.grpc.wire import check_shape
from dropserve_server.predictor import PredictionJob

INPUT = "features"
FINAL_RESPONSE = "triton_final_response"


@dataclass(frozen=True, slots=True)
class _Encoding:
    """How a datatype's elements travel: raw, and in which of the typed contents, if in any."""

    dtype: np.dtype[Any]
    contents: str | None


_ENCODINGS = {
    "FP32": _Encoding(np.dtype("<f4"), "fp32_contents"),
    "FP64": _Encoding(np.dtype("<f8"), "fp64_contents"),
    "FP16": _Encoding(np.dtype("<f2"), None),
    "INT8": _Encoding(np.dtype("<i1"), "int_contents"),
    "INT16": _Encoding(np.dtype("<i2"), "int_contents"),
    "INT32": _Encoding(np.dtype("<i4"), "int_contents"),
    "INT64": _Encoding(np.dtype("<i8"), "int64_contents"),
    "UINT8": _Encoding(np.dtype("<u1"), "uint_contents"),
    "UINT16": _Encoding(np.dtype("<u2"), "uint_contents"),
    "UINT32": _Encoding(np.dtype("<u4"), "uint_contents"),
    "UINT64": _Encoding(np.dtype("<u8"), "uint64_contents"),
}
_DATATYPES = {np.dtype(np.float32): "FP32", np.dtype(np.int64): "INT64"}

_SHARED_MEMORY = "shared_memory_region"
_CLASSIFICATION = "classification"


def is_quickly_read(request: ModelInferRequest, many: int) -> bool:
    """Whether reading the features takes no call an element, or no more than `many` of them."""
    tensor = request.inputs[0] if request.inputs else ModelInferRequest.InferInputTensor()
    if request.raw_input_contents:
        return tensor.datatype == "FP32" or len(request.raw_input_contents[0]) < 8 * many
    return sum(len(values) for _, values in tensor.contents.ListFields()) < many


def read_features(request: ModelInferRequest) -> FloatArray:
    """The features [rows, features] of a request's one input; from raw FP32 without a copy.

    Raises
    ------
    InvalidRequest
        There is not exactly one input, called "features"; its shape is not two-dimensional, its datatype
        no number, its elements are not as many as the shape says, or are beyond float32's range.
    """
    tensor = _only_input(request)
    shape = tuple(tensor.shape)
    check_shape(shape)
    encoding = _ENCODINGS.get(tensor.datatype)
    if encoding is None:
        raise InvalidRequest(
            "inputs.datatype",
            f"{INPUT} has datatype {bounded(tensor.datatype)}; it must be FP32, or one that is "
            f"converted to it: {', '.join(name for name in _ENCODINGS if name != 'FP32')}",
        )
    if request.raw_input_contents:
        values = _read_raw(request.raw_input_contents[0], encoding.dtype, shape)
    else:
        values = _read_contents(tensor, encoding, shape)
    return _as_float32(values).reshape(shape)


def outputs_of(info: ModelInfo, options: MonteCarloOptions | None, interval: float = 0.0) -> list[str]:
    """Names of the outputs that a request with `options` gets: of fields of its `Prediction`."""
    names = ["mean"]
    if info.predicts_noise:
        names.append("aleatoric_variance")
    if interval:
        names += ["interval_lower", "interval_upper"] if info.task == "regression" else ["prediction_set"]
    if options is None:
        return names
    names.append("variance")
    if options.passes > 1:
        names += ["standard_error", "std_standard_error"]
    if info.task != "regression":
        names += ["predictive_entropy", "expected_entropy", "mutual_information"]
    if options.quantiles:
        names.append("quantiles")
    if options.return_samples:
        names.append("samples")
    if options.adaptive:
        names.append("row_passes")
    return names


def read_outputs(
    request: ModelInferRequest, info: ModelInfo, options: MonteCarloOptions | None, interval: float = 0.0
) -> list[str]:
    """Names of the outputs to answer with: those that the request wants, or else all it can get.

    Raises
    ------
    InvalidRequest
        An output that is wanted does not exist, or is not what this request's parameters give; or it is
        wanted in a form that this server does not have.
    """
    available = outputs_of(info, options, interval)
    if not request.outputs:
        return available
    for output in request.outputs:
        if output.name not in available:
            hint = "" if options else "; those with error bars come with the parameter passes"
            hint += "" if interval or not info.calibrated else "; intervals and prediction sets with interval"
            raise InvalidRequest(
                "outputs",
                f"this request has no output {bounded(output.name)}; "
                f"its outputs are {', '.join(available)}{hint}",
            )
        for extension in (_CLASSIFICATION, _SHARED_MEMORY):
            if extension in output.parameters:
                raise InvalidRequest("outputs.parameters", f"this server has no {extension} of outputs")
    return list(dict.fromkeys(output.name for output in request.outputs))


def write_answer(request_id: str, job: PredictionJob, outputs: Sequence[str]) -> ModelInferResponse:
    """The answer to a request, from its finished job."""
    served, prediction = job.served, job.result
    assert prediction is not None
    response = ModelInferResponse(model_name=served.name, model_version=served.version, id=request_id)
    if job.options is not None:
        response.parameters["passes"].int64_param = prediction.passes
    for name in outputs:
        array: NDArray[Any] | None = getattr(prediction, name)
        if array is None:  # this model can't tell
            continue
        datatype = _DATATYPES[array.dtype]
        response.outputs.add(name=name, datatype=datatype, shape=array.shape)
        response.raw_output_contents.append(array.astype(_ENCODINGS[datatype].dtype, copy=False).tobytes())
    return response


def _only_input(request: ModelInferRequest) -> ModelInferRequest.InferInputTensor:
    names = [tensor.name for tensor in request.inputs]
    if names != [INPUT]:
        listed = ", ".join(map(bounded, names[:10])) or "none"
        raise InvalidRequest("inputs", f"the inputs are {listed}; every model here takes one, {INPUT!r}")
    (tensor,) = request.inputs
    if _SHARED_MEMORY in tensor.parameters:
        raise InvalidRequest("inputs.parameters", "this server reads no shared memory; send the elements")
    raw = len(request.raw_input_contents)
    if raw and tensor.HasField("contents"):
        raise InvalidRequest("inputs.contents", f"{INPUT} has both contents and raw_input_contents; set one")
    if raw > 1:
        raise InvalidRequest("raw_input_contents", f"there are {raw} raw_input_contents for one input")
    return tensor


def _read_raw(raw: bytes, dtype: np.dtype[Any], shape: tuple[int, ...]) -> NDArray[Any]:
    if len(raw) != prod(shape) * dtype.itemsize:
        raise InvalidRequest(
            "raw_input_contents",
            f"raw_input_contents[0] has {len(raw)} bytes; shape {list(shape)} of {dtype.itemsize}-byte "
            f"elements needs {prod(shape) * dtype.itemsize}",
        )
    return np.frombuffer(raw, dtype)


def _read_contents(
    tensor: ModelInferRequest.InferInputTensor, encoding: _Encoding, shape: tuple[int, ...]
) -> NDArray[Any]:
    if encoding.contents is None:
        raise InvalidRequest("inputs.contents", f"{tensor.datatype} travels in raw_input_contents only")
    elsewhere = [field.name for field, _ in tensor.contents.ListFields() if field.name != encoding.contents]
    if elsewhere:
        raise InvalidRequest(
            f"inputs.contents.{elsewhere[0]}",
            f"{INPUT} has elements in {elsewhere[0]}; those of {tensor.datatype} go into {encoding.contents}",
        )
    values = getattr(tensor.contents, encoding.contents)
    if len(values) != prod(shape):
        raise InvalidRequest(
            f"inputs.contents.{encoding.contents}",
            f"{encoding.contents} has {len(values)} elements; shape {list(shape)} needs {prod(shape)}",
        )
    # Not in the datatype's own width, where the odd number that doesn't fit would wrap around.
    return np.fromiter(values, np.float32 if tensor.datatype == "FP32" else np.float64, len(values))


def _as_float32(values: NDArray[Any]) -> FloatArray:
    if values.dtype.newbyteorder("=") == np.float32:
        return values.astype(np.float32, copy=False)
    with np.errstate(over="ignore"):
        converted = values.astype(np.float32)
    beyond = np.isinf(converted) & np.isfinite(values)
    if beyond.any():
        raise InvalidRequest("inputs", f"{INPUT} holds {values[beyond.argmax()]:g}, beyond float32's range")
    return converted
