"""Graphs of a Dropout and the operations that follow it."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import onnx

from support.onnx_models import constant, model, node

UNITS = 4
HALF = constant("half", 0.5)


@dataclass(frozen=True)
class Case:
    """What follows the Dropout: reads `d`, or `d` + 0.5 as `x`; ends in `prediction`."""

    nodes: list[onnx.NodeProto]
    constants: list[onnx.TensorProto] = field(default_factory=list)
    width: int = UNITS
    opset: int = 17
    positive: bool = False  # logarithms and roots get features above 0

    def data(self) -> bytes:
        if self.opset < 12:
            dropout = node("Dropout", "features", "d", ratio=0.5)
        else:
            dropout = node("Dropout", "features half", "d")
        before = [dropout, node("Add", "d half", "x")]
        return model([*before, *self.nodes], [HALF, *self.constants], UNITS, self.width, self.opset)


def one(
    op: str, inputs: str = "d", *constants: onnx.TensorProto, opset: int = 17, **attributes: object
) -> Case:
    return Case([node(op, inputs, "prediction", **attributes)], list(constants), opset=opset)


def int64(name: str, *values: int) -> onnx.TensorProto:
    return constant(name, values, np.int64)
