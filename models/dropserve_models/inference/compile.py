"""Reading the suffix of an ONNX graph into a `Program`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any, cast

import numpy as np
import onnx
from numpy.typing import NDArray

from dropserve_models.errors import MonteCarloUnavailable
from dropserve_models.inference.graph import Split, attributes
from dropserve_models.inference.program import (
    Array,
    Concat,
    Drop,
    Elementwise,
    Linear,
    Mean,
    Program,
    Select,
    Site,
    Softmax,
    Step,
    arguments,
)

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


class Unsupported(Exception):
    """Why one node can't be run; `compile_program` adds which node it is."""


def compile_program(split: Split, widths: Mapping[str, int], wanted: tuple[str, ...]) -> Program:
    """Read the suffix of `split`; `widths` are those of its boundary.

    Parameters
    ----------
    wanted : tuple of str
        The graph outputs to compute; what only others need is left out.

    Raises
    ------
    MonteCarloUnavailable
        There is no active Dropout, no wanted output depends on one, or an operation after the first one
        is not supported; the message names it.
    """
    if not split.rates:
        raise MonteCarloUnavailable(
            "it has no Dropout node with a rate above 0, so every pass would be the same"
        )
    compiler = _Compiler(split, dict(widths))
    needed = set(wanted)
    nodes = []
    for node in reversed(split.suffix):
        if needed.intersection(node.output):
            nodes.append(node)
            needed.update(node.input)
    for node in reversed(nodes):
        try:
            compiler.add(node)
        except Unsupported as error:
            name = f" ({node.name})" if node.name else ""
            raise MonteCarloUnavailable(
                f"operation {node.op_type}{name} after the first Dropout is not supported: {error}"
            ) from None
    if not compiler.sites:
        raise MonteCarloUnavailable("no output depends on a Dropout node, so every pass would be the same")
    steps = _fold_biases(compiler.steps, wanted)
    boundary = tuple(name for name in split.boundary if name in needed)
    return Program(steps, compiler.widths, boundary, tuple(compiler.sites), wanted)


class _Compiler:
    def __init__(self, split: Split, widths: dict[str, int]) -> None:
        self.split = split
        self.widths = widths
        self.sites: list[Site] = []
        self.steps: list[Step] = []
        self.read = set(split.outputs).union(*(node.input for node in split.suffix))

    def add(self, node: onnx.NodeProto) -> None:
        if node.domain not in ("", "ai.onnx"):
            raise Unsupported(f"operator domain {node.domain}")
        if node.op_type in ELEMENTWISE:
            self._elementwise(node)
        elif node.op_type in _READERS:
            _READERS[node.op_type](self, node)
        else:
            raise Unsupported("the Monte Carlo engine runs networks of dense layers")

    def emit(self, step: Step, width: int) -> None:
        self.steps.append(step)
        self.widths[step.out] = width

    def value(self, name: str) -> str:
        if name not in self.widths:
            raise Unsupported(f"its input {name!r} is not a [rows, units] value")
        return name

    def constant(self, name: str) -> NDArray[np.generic]:
        if name not in self.split.constants:
            raise Unsupported(f"its input {name!r} must be a constant")
        return self.split.constants[name]

    def operand(self, name: str) -> str | Array:
        """A value's name, or a constant as [units] or [1]."""
        if name not in self.split.constants:
            return self.value(name)
        constant = self.split.constants[name]
        if constant.dtype != np.float32:
            raise Unsupported(f"its constant {name!r} is {constant.dtype}, not float32")
        if constant.ndim > 2 or (constant.ndim == 2 and constant.shape[0] != 1):
            raise Unsupported(f"its constant {name!r} has shape {constant.shape}, which depends on the row")
        return np.atleast_1d(constant.reshape(-1) if constant.ndim else constant).astype(np.float32)

    def unit_axis(self, axis: object) -> None:
        if axis not in (1, -1):
            raise Unsupported(f"axis {axis}: only the units (axis 1) can be used, rows stay apart")

    def _elementwise(self, node: onnx.NodeProto) -> None:
        given = attributes(node)
        defaults = ELEMENTWISE[node.op_type]
        numbers = {key: float(cast(float, given.get(key, default))) for key, default in defaults.items()}
        args = tuple(self.operand(name) for name in node.input)
        widths = {self.widths[arg] if isinstance(arg, str) else len(arg) for arg in args}
        if len(widths - {1}) > 1:
            raise Unsupported(f"its inputs have {sorted(widths)} units")
        self.emit(Elementwise(node.output[0], node.op_type, args, numbers), max(widths))


def _dropout(compiler: _Compiler, node: onnx.NodeProto) -> None:
    if compiler.read.intersection(filter(None, node.output[1:])):
        raise Unsupported("its mask output is used")
    x = compiler.value(node.input[0])
    rate = compiler.split.rates.get(node.output[0])
    if rate is None:
        _identity(compiler, node)
        return
    width = compiler.widths[x]
    compiler.emit(Drop(node.output[0], x, len(compiler.sites)), width)
    compiler.sites.append(Site(rate, width))


def _identity(compiler: _Compiler, node: onnx.NodeProto) -> None:
    x = compiler.value(node.input[0])
    compiler.emit(Elementwise(node.output[0], "Identity", (x,)), compiler.widths[x])


def _cast(compiler: _Compiler, node: onnx.NodeProto) -> None:
    if attributes(node).get("to") != _FLOAT:
        raise Unsupported("only casts to float32 are")
    _identity(compiler, node)


def _flatten(compiler: _Compiler, node: onnx.NodeProto) -> None:
    compiler.unit_axis(attributes(node).get("axis", 1))
    _identity(compiler, node)


def _matmul(compiler: _Compiler, node: onnx.NodeProto) -> None:
    if node.input[0] in compiler.split.constants:
        raise Unsupported("its first input is a constant; expected rows @ weights")
    _linear(compiler, node.output[0], compiler.value(node.input[0]), compiler.constant(node.input[1]).T, None)


def _gemm(compiler: _Compiler, node: onnx.NodeProto) -> None:
    given = attributes(node)
    if given.get("transA", 0):
        raise Unsupported("transA")
    weight: NDArray[Any] = compiler.constant(node.input[1])
    weight = weight if given.get("transB", 0) else weight.T
    alpha = np.float32(cast(float, given.get("alpha", 1.0)))
    beta = np.float32(cast(float, given.get("beta", 1.0)))
    bias = None
    if len(node.input) > 2 and node.input[2]:
        operand = compiler.operand(node.input[2])
        if isinstance(operand, str):
            raise Unsupported("its bias is not a constant")
        bias = np.broadcast_to(operand * beta, (weight.shape[0],)).astype(np.float32)
    x = compiler.value(node.input[0])
    _linear(compiler, node.output[0], x, weight * alpha, bias)


def _linear(
    compiler: _Compiler, out: str, x: str, weight: NDArray[np.generic], bias: NDArray[np.float32] | None
) -> None:
    if weight.dtype != np.float32:
        raise Unsupported(f"its weights are {weight.dtype}, not float32")
    if weight.ndim != 2 or weight.shape[1] != compiler.widths[x]:
        raise Unsupported(f"weights of shape {weight.T.shape} on {compiler.widths[x]} units")
    compiler.emit(Linear(out, x, np.ascontiguousarray(weight, np.float32), bias), weight.shape[0])


def _softmax(compiler: _Compiler, node: onnx.NodeProto) -> None:
    compiler.unit_axis(attributes(node).get("axis", -1))
    x = compiler.value(node.input[0])
    compiler.emit(Softmax(node.output[0], x, node.op_type == "LogSoftmax"), compiler.widths[x])


def _gelu(compiler: _Compiler, node: onnx.NodeProto) -> None:
    x = compiler.value(node.input[0])
    tanh = attributes(node).get("approximate", b"none") == b"tanh"
    op = "GeluTanh" if tanh else "Gelu"
    compiler.emit(Elementwise(node.output[0], op, (x,)), compiler.widths[x])


def _clip(compiler: _Compiler, node: onnx.NodeProto) -> None:
    x = compiler.value(node.input[0])
    given = attributes(node)
    names = ["min", "max"]
    bounds = {key: float(cast(float, given[key])) for key in names if key in given}
    for key, name in zip(names, node.input[1:], strict=False):
        if name:
            bounds[key] = float(np.float32(compiler.constant(name).reshape(())))
    op = "Clip" if bounds else "Identity"
    compiler.emit(Elementwise(node.output[0], op, (x,), bounds), compiler.widths[x])


def _batch_normalization(compiler: _Compiler, node: onnx.NodeProto) -> None:
    x = compiler.value(node.input[0])
    scale, shift, mean, variance = (compiler.constant(name).astype(np.float64) for name in node.input[1:5])
    epsilon = float(cast(float, attributes(node).get("epsilon", 1e-5)))
    factor = scale / np.sqrt(variance + epsilon)
    offset = shift - mean * factor
    width = compiler.widths[x]
    scaled = node.output[0] + "/scaled"
    compiler.emit(Elementwise(scaled, "Mul", (x, factor.astype(np.float32))), width)
    compiler.emit(Elementwise(node.output[0], "Add", (scaled, offset.astype(np.float32))), width)


def _layer_normalization(compiler: _Compiler, node: onnx.NodeProto) -> None:
    given = attributes(node)
    compiler.unit_axis(given.get("axis", -1))
    if compiler.read.intersection(filter(None, node.output[1:])):
        raise Unsupported("its mean and deviation outputs are used")
    x, out = compiler.value(node.input[0]), node.output[0]
    width = compiler.widths[x]
    epsilon = np.array([cast(float, given.get("epsilon", 1e-5))], np.float32)

    def unit(suffix: str, op: str, *args: str | Array, width: int = width) -> str:
        compiler.emit(Elementwise(f"{out}/{suffix}", op, args), width)
        return f"{out}/{suffix}"

    compiler.emit(Mean(f"{out}/mean", x), 1)
    centred = unit("centred", "Sub", x, f"{out}/mean")
    square = unit("square", "Mul", centred, centred)
    compiler.emit(Mean(f"{out}/variance", square), 1)
    deviation = unit("std", "Sqrt", unit("shifted", "Add", f"{out}/variance", epsilon, width=1), width=1)
    normal = unit("normal", "Div", centred, deviation)
    scaled = unit("scaled", "Mul", normal, compiler.operand(node.input[1]))
    bias = (
        compiler.operand(node.input[2]) if len(node.input) > 2 and node.input[2] else np.zeros(1, np.float32)
    )
    compiler.emit(Elementwise(out, "Add", (scaled, bias)), width)


def _slice(compiler: _Compiler, node: onnx.NodeProto) -> None:
    x = compiler.value(node.input[0])
    given = attributes(node)
    names = ("starts", "ends", "axes", "steps")
    fields = {key: np.atleast_1d(np.asarray(value)) for key, value in given.items() if key in names}
    for key, name in zip(names, node.input[1:], strict=False):
        if name:
            fields[key] = np.atleast_1d(compiler.constant(name))
    axes = fields.get("axes", np.arange(len(fields["starts"])))
    if len(axes) != 1:
        raise Unsupported("it slices several axes")
    compiler.unit_axis(int(axes[0]))
    step = int(fields["steps"][0]) if "steps" in fields else 1
    if step < 1:
        raise Unsupported(f"step {step}")
    indices = np.arange(compiler.widths[x])[int(fields["starts"][0]) : int(fields["ends"][0]) : step]
    compiler.emit(Select(node.output[0], x, indices), len(indices))


def _split(compiler: _Compiler, node: onnx.NodeProto) -> None:
    given = attributes(node)
    compiler.unit_axis(given.get("axis", 0))
    x = compiler.value(node.input[0])
    parts = len(node.output)
    sizes = given.get("split")
    if len(node.input) > 1 and node.input[1]:
        sizes = compiler.constant(node.input[1]).tolist()
    if sizes is None:
        size = -(-compiler.widths[x] // parts)
        sizes = [size] * (parts - 1) + [compiler.widths[x] - size * (parts - 1)]
    ends = np.cumsum(cast("list[int]", sizes))
    for name, end, size in zip(node.output, ends, cast("list[int]", sizes), strict=True):
        compiler.emit(Select(name, x, np.arange(end - size, end)), size)


def _gather(compiler: _Compiler, node: onnx.NodeProto) -> None:
    compiler.unit_axis(attributes(node).get("axis", 0))
    x = compiler.value(node.input[0])
    indices = compiler.constant(node.input[1])
    if indices.ndim != 1:
        raise Unsupported("its indices are not a list")
    units = indices.astype(np.int64) % compiler.widths[x]
    compiler.emit(Select(node.output[0], x, units), len(units))


def _concat(compiler: _Compiler, node: onnx.NodeProto) -> None:
    compiler.unit_axis(attributes(node).get("axis"))
    xs = tuple(compiler.value(name) for name in node.input)
    compiler.emit(Concat(node.output[0], xs), sum(compiler.widths[x] for x in xs))


_READERS: Mapping[str, Callable[[_Compiler, onnx.NodeProto], None]] = {
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


def _fold_biases(steps: list[Step], outputs: tuple[str, ...]) -> tuple[Step, ...]:
    """Move the constant added to a linear layer's result, and to it alone, into its bias."""
    readers = Counter(name for step in steps for name in arguments(step))
    linear = {step.out: step for step in steps if isinstance(step, Linear) and step.bias is None}
    folded: dict[str, Step] = {}
    dropped = set()
    for step in steps:
        if not (isinstance(step, Elementwise) and step.op == "Add" and len(step.args) == 2):
            continue
        value, constant = step.args if isinstance(step.args[0], str) else step.args[::-1]
        if not isinstance(value, str) or isinstance(constant, str) or value not in linear:
            continue
        layer = linear[value]
        if readers[value] == 1 and value not in outputs and len(constant) in (1, len(layer.weight)):
            bias = np.broadcast_to(constant, (len(layer.weight),)).astype(np.float32)
            folded[step.out] = Linear(step.out, layer.x, layer.weight, bias)
            dropped.add(value)
    return tuple(folded.get(step.out, step) for step in steps if step.out not in dropped)
