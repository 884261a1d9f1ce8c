"""A bare client of the Open Inference Protocol: what goes out and comes back, without anybody's SDK."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from dropserve.inference.service_pb2 import InferParameter, ModelInferRequest, ModelInferResponse

Input = ModelInferRequest.InferInputTensor
Output = ModelInferRequest.InferRequestedOutputTensor

DTYPES = {
    "FP32": "<f4", "FP64": "<f8", "FP16": "<f2",
    "INT8": "<i1", "INT16": "<i2", "INT32": "<i4", "INT64": "<i8",
    "UINT8": "<u1", "UINT16": "<u2", "UINT32": "<u4", "UINT64": "<u8",
}  # fmt: skip
CONTENTS = {
    "FP32": "fp32_contents", "FP64": "fp64_contents",
    "INT8": "int_contents", "INT16": "int_contents", "INT32": "int_contents", "INT64": "int64_contents",
    "UINT8": "uint_contents", "UINT16": "uint_contents", "UINT32": "uint_contents",
    "UINT64": "uint64_contents",
}  # fmt: skip


def parameter(value: bool | int | float | str) -> InferParameter:
    """A parameter as tritonclient makes it; whole numbers beyond int64 as uint64."""
    if isinstance(value, bool):
        return InferParameter(bool_param=value)
    if isinstance(value, int):
        return InferParameter(int64_param=value) if value < 2**63 else InferParameter(uint64_param=value)
    if isinstance(value, float):
        return InferParameter(double_param=value)
    return InferParameter(string_param=value)


def infer_request(
    model: str,
    rows: Any,
    parameters: dict[str, Any] | None = None,
    *,
    datatype: str = "FP32",
    raw: bool = True,
    outputs: tuple[str, ...] = (),
    **fields: Any,
) -> ModelInferRequest:
    """A request for rows [rows, features], as raw bytes or as typed contents."""
    array = np.asarray(rows).astype(DTYPES[datatype])
    tensor = Input(name="features", datatype=datatype, shape=array.shape)
    request = ModelInferRequest(model_name=model, outputs=[Output(name=name) for name in outputs], **fields)
    if raw:
        request.raw_input_contents.append(array.tobytes())
    else:
        getattr(tensor.contents, CONTENTS[datatype]).extend(array.ravel().tolist())
    request.inputs.append(tensor)
    for name, value in (parameters or {}).items():
        request.parameters[name].CopyFrom(parameter(value))
    return request


def arrays_of(response: ModelInferResponse) -> dict[str, NDArray[Any]]:
    """The outputs by name, in their order."""
    assert len(response.outputs) == len(response.raw_output_contents)
    return {
        output.name: np.frombuffer(raw, DTYPES[output.datatype]).reshape(tuple(output.shape))
        for output, raw in zip(response.outputs, response.raw_output_contents, strict=True)
    }
