"""Unit-wise operations as ONNX nodes: the steps' names are those of ONNX, and nearly all attributes are."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from dropserve_models.inference.program import Elementwise
from dropserve_models.inference.small.writer import Writer


def write_elementwise(writer: Writer, step: Elementwise, args: Sequence[str]) -> str:
    """Add a step whose arguments are in the graph under these names, and return the result's name."""
    special = _SPECIAL.get(step.op)
    if special is not None:
        return special(writer, args, step.attributes)
    return writer.op(step.op, *args, **step.attributes)


def _gelu_tanh(writer: Writer, args: Sequence[str], _: Mapping[str, float]) -> str:
    return writer.op("Gelu", *args, approximate="tanh")


def _clip(writer: Writer, args: Sequence[str], attributes: Mapping[str, float]) -> str:
    bounds = [writer.constant(attributes[side]) if side in attributes else "" for side in ("min", "max")]
    return writer.op("Clip", *args, *bounds)


def _swish(writer: Writer, args: Sequence[str], attributes: Mapping[str, float]) -> str:
    scaled = writer.op("Mul", args[0], writer.constant(attributes["alpha"]))
    return writer.op("Mul", args[0], writer.op("Sigmoid", scaled))


_SPECIAL: Mapping[str, Callable[[Writer, Sequence[str], Mapping[str, float]], str]] = {
    "Clip": _clip,
    "GeluTanh": _gelu_tanh,
    "Swish": _swish,  # an operation only since opset 24
}
