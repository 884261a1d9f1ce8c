"""How each ONNX operation is read into steps."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, cast

import numpy as np
import onnx
from numpy.typing import NDArray

from dropserve_models.inference.graph import attributes
from dropserve_models.inference.program import (
    Array,
    Concat,
    Drop,
    Elementwise,
    Linear,
    Mean,
    Select,
    Site,
    Softmax,
)
from dropserve_models.inference.reader import Reader, Unsupported

# The attributes of elementwise operations, with the defaults of the ONNX specification.
ELEMENTWISE: Mapping[str, Mapping[str, float]] = {
    "Abs": {}, "Add": {}, "Celu": {"alpha": 1.0}, "Div": {}, "Elu": {"alpha": 1.0}, "Erf": {}, "Exp": {},
    "HardSigmoid": {"alpha": 0.2, "beta": 0.5}, "HardSwish": {}, "LeakyRelu": {"alpha": 0.01}, "Log": {},
    "Max": {}, "Min": {}, "Mish": {}, "Mul": {}, "Neg": {}, "Pow": {}, "PRelu": {}, "Reciprocal": {},
    "Relu": {}, "Selu": {"alpha": 1.67326319217681884765625, "gamma": 1.05070102214813232421875},
    "Sigmoid": {}, "Softplus": {}, "Softsign": {}, "Sqrt": {}, "Sub": {}, "Sum": {}, "Swish": {"alpha": 1.0},
    "Tanh": {}, "ThresholdedRelu": {"alpha": 1.0},
}  # fmt: skip
_FLOAT = onnx.TensorProto.FLOAT


def read(reader: Reader, node: onnx.NodeProto) -> None:
    """Add the steps of a node.

    Raises
    ------
    Unsupported
        It can't be run pass by pass.
    """
    if node.domain not in ("", "ai.onnx"):
        raise Unsupported(f"operator domain {node.domain}")
    if node.op_type in ELEMENTWISE:
        _elementwise(reader, node)
    elif node.op_type in _READERS:
        _READERS[node.op_type](reader, node)
    else:
        raise Unsupported("the Monte Carlo engine runs networks of dense layers")


def _elementwise(reader: Reader, node: onnx.NodeProto) -> None:
    given = attributes(node)
    defaults = ELEMENTWISE[node.op_type]
    numbers = {key: float(cast(float, given.get(key, default))) for key, default in defaults.items()}
    args = tuple(reader.operand(name) for name in node.input)
    widths = {reader.widths[arg] if isinstance(arg, str) else len(arg) for arg in args}
    if len(widths - {1}) > 1:
        raise Unsupported(f"its inputs have {sorted(widths)} units")
    reader.emit(Elementwise(node.output[0], node.op_type, args, numbers), max(widths))


def _dropout(reader: Reader, node: onnx.NodeProto) -> None:
    if reader.read.intersection(filter(None, node.output[1:])):
        raise Unsupported("its mask output is used")
    x = reader.value(node.input[0])
    rate = reader.split.rates.get(node.output[0])
    if rate is None:
        _identity(reader, node)
        return
    width = reader.widths[x]
    reader.emit(Drop(node.output[0], x, len(reader.sites)), width)
    reader.sites.append(Site(rate, width))


def _identity(reader: Reader, node: onnx.NodeProto) -> None:
    x = reader.value(node.input[0])
    reader.emit(Elementwise(node.output[0], "Identity", (x,)), reader.widths[x])


def _cast(reader: Reader, node: onnx.NodeProto) -> None:
    if attributes(node).get("to") != _FLOAT:
        raise Unsupported("only casts to float32 are")
    _identity(reader, node)


def _flatten(reader: Reader, node: onnx.NodeProto) -> None:
    reader.unit_axis(attributes(node).get("axis", 1))
    _identity(reader, node)


def _matmul(reader: Reader, node: onnx.NodeProto) -> None:
    if node.input[0] in reader.split.constants:
        raise Unsupported("its first input is a constant; expected rows @ weights")
    _linear(reader, node.output[0], reader.value(node.input[0]), reader.constant(node.input[1]).T, None)


def _gemm(reader: Reader, node: onnx.NodeProto) -> None:
    given = attributes(node)
    if given.get("transA", 0):
        raise Unsupported("transA")
    weight: NDArray[Any] = reader.constant(node.input[1])
    weight = weight if given.get("transB", 0) else weight.T
    alpha = np.float32(cast(float, given.get("alpha", 1.0)))
    beta = np.float32(cast(float, given.get("beta", 1.0)))
    bias = None
    if len(node.input) > 2 and node.input[2]:
        operand = reader.operand(node.input[2])
        if isinstance(operand, str):
            raise Unsupported("its bias is not a constant")
        bias = np.broadcast_to(operand * beta, (weight.shape[0],)).astype(np.float32)
    x = reader.value(node.input[0])
    _linear(reader, node.output[0], x, weight * alpha, bias)


def _linear(
    reader: Reader, out: str, x: str, weight: NDArray[np.generic], bias: NDArray[np.float32] | None
) -> None:
    if weight.dtype != np.float32:
        raise Unsupported(f"its weights are {weight.dtype}, not float32")
    if weight.ndim != 2 or weight.shape[1] != reader.widths[x]:
        raise Unsupported(f"weights of shape {weight.T.shape} on {reader.widths[x]} units")
    reader.emit(Linear(out, x, np.ascontiguousarray(weight, np.float32), bias), weight.shape[0])


def _softmax(reader: Reader, node: onnx.NodeProto) -> None:
    reader.unit_axis(attributes(node).get("axis", -1))
    x = reader.value(node.input[0])
    reader.emit(Softmax(node.output[0], x, node.op_type == "LogSoftmax"), reader.widths[x])


def _gelu(reader: Reader, node: onnx.NodeProto) -> None:
    x = reader.value(node.input[0])
    tanh = attributes(node).get("approximate", b"none") == b"tanh"
    op = "GeluTanh" if tanh else "Gelu"
    reader.emit(Elementwise(node.output[0], op, (x,)), reader.widths[x])


def _clip(reader: Reader, node: onnx.NodeProto) -> None:
    x = reader.value(node.input[0])
    given = attributes(node)
    names = ["min", "max"]
    bounds = {key: float(cast(float, given[key])) for key in names if key in given}
    for key, name in zip(names, node.input[1:], strict=False):
        if name:
            bounds[key] = float(np.float32(reader.constant(name).reshape(())))
    op = "Clip" if bounds else "Identity"
    reader.emit(Elementwise(node.output[0], op, (x,), bounds), reader.widths[x])


def _batch_normalization(reader: Reader, node: onnx.NodeProto) -> None:
    x = reader.value(node.input[0])
    scale, shift, mean, variance = (reader.constant(name).astype(np.float64) for name in node.input[1:5])
    epsilon = float(cast(float, attributes(node).get("epsilon", 1e-5)))
    factor = scale / np.sqrt(variance + epsilon)
    offset = shift - mean * factor
    width = reader.widths[x]
    scaled = node.output[0] + "/scaled"
    reader.emit(Elementwise(scaled, "Mul", (x, factor.astype(np.float32))), width)
    reader.emit(Elementwise(node.output[0], "Add", (scaled, offset.astype(np.float32))), width)


def _layer_normalization(reader: Reader, node: onnx.NodeProto) -> None:
    given = attributes(node)
    reader.unit_axis(given.get("axis", -1))
    if reader.read.intersection(filter(None, node.output[1:])):
        raise Unsupported("its mean and deviation outputs are used")
    x, out = reader.value(node.input[0]), node.output[0]
    width = reader.widths[x]
    epsilon = np.array([cast(float, given.get("epsilon", 1e-5))], np.float32)

    def unit(suffix: str, op: str, *args: str | Array, width: int = width) -> str:
        reader.emit(Elementwise(f"{out}/{suffix}", op, args), width)
        return f"{out}/{suffix}"

    reader.emit(Mean(f"{out}/mean", x), 1)
    centred = unit("centred", "Sub", x, f"{out}/mean")
    square = unit("square", "Mul", centred, centred)
    reader.emit(Mean(f"{out}/variance", square), 1)
    deviation = unit("std", "Sqrt", unit("shifted", "Add", f"{out}/variance", epsilon, width=1), width=1)
    normal = unit("normal", "Div", centred, deviation)
    scaled = unit("scaled", "Mul", normal, reader.operand(node.input[1]))
    bias = reader.operand(node.input[2]) if len(node.input) > 2 and node.input[2] else np.zeros(1, np.float32)
    reader.emit(Elementwise(out, "Add", (scaled, bias)), width)


def _slice(reader: Reader, node: onnx.NodeProto) -> None:
    x = reader.value(node.input[0])
    given = attributes(node)
    names = ("starts", "ends", "axes", "steps")
    fields = {key: np.atleast_1d(np.asarray(value)) for key, value in given.items() if key in names}
    for key, name in zip(names, node.input[1:], strict=False):
        if name:
            fields[key] = np.atleast_1d(reader.constant(name))
    axes = fields.get("axes", np.arange(len(fields["starts"])))
    if len(axes) != 1:
        raise Unsupported("it slices several axes")
    reader.unit_axis(int(axes[0]))
    step = int(fields["steps"][0]) if "steps" in fields else 1
    if step < 1:
        raise Unsupported(f"step {step}")
    indices = np.arange(reader.widths[x])[int(fields["starts"][0]) : int(fields["ends"][0]) : step]
    reader.emit(Select(node.output[0], x, indices), len(indices))


def _split(reader: Reader, node: onnx.NodeProto) -> None:
    given = attributes(node)
    reader.unit_axis(given.get("axis", 0))
    x = reader.value(node.input[0])
    parts = len(node.output)
    sizes = given.get("split")
    if len(node.input) > 1 and node.input[1]:
        sizes = reader.constant(node.input[1]).tolist()
    if sizes is None:
        size = -(-reader.widths[x] // parts)
        sizes = [size] * (parts - 1) + [reader.widths[x] - size * (parts - 1)]
    ends = np.cumsum(cast("list[int]", sizes))
    for name, end, size in zip(node.output, ends, cast("list[int]", sizes), strict=True):
        reader.emit(Select(name, x, np.arange(end - size, end)), size)


def _gather(reader: Reader, node: onnx.NodeProto) -> None:
    reader.unit_axis(attributes(node).get("axis", 0))
    x = reader.value(node.input[0])
    indices = reader.constant(node.input[1])
    if indices.ndim != 1:
        raise Unsupported("its indices are not a list")
    units = indices.astype(np.int64) % reader.widths[x]
    reader.emit(Select(node.output[0], x, units), len(units))


def _concat(reader: Reader, node: onnx.NodeProto) -> None:
    reader.unit_axis(attributes(node).get("axis"))
    xs = tuple(reader.value(name) for name in node.input)
    reader.emit(Concat(node.output[0], xs), sum(reader.widths[x] for x in xs))


_READERS: Mapping[str, Callable[[Reader, onnx.NodeProto], None]] = {
    "BatchNormalization": _batch_normalization,
    "Cast": _cast,
    "Clip": _clip,
    "Concat": _concat,
    "Dropout": _dropout,
    "Flatten": _flatten,
    "Gather": _gather,
    "Gelu": _gelu,
    "Gemm": _gemm,
    "Identity": _identity,
    "LayerNormalization": _layer_normalization,
    "LogSoftmax": _softmax,
    "MatMul": _matmul,
    "Slice": _slice,
    "Softmax": _softmax,
    "Split": _split,
}
