"""Writing ONNX nodes one after the other, without thinking of names."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
from numpy.typing import ArrayLike, DTypeLike
from onnx import TensorProto, helper, numpy_helper

OPSET = 20
_IR_VERSION = 9

_TYPES = {"float": TensorProto.FLOAT, "integer": TensorProto.INT64}


class Writer:
    """Collects the nodes and constants of a graph."""

    def __init__(self) -> None:
        self._nodes: list[onnx.NodeProto] = []
        self._constants: list[onnx.TensorProto] = []
        self._known: dict[tuple[str, str, bytes], str] = {}
        self._inputs: list[onnx.ValueInfoProto] = []
        self.outputs: list[str] = []

    def input(self, name: str, axes: int, kind: str = "float") -> str:
        """Declare an input with so many axes, of any size."""
        shape = [f"{name} axis {axis}" for axis in range(axes)]
        self._inputs.append(helper.make_tensor_value_info(name, _TYPES[kind], shape))
        return name

    def count(self, name: str) -> str:
        """An input that holds one integer, declared the first time it is asked for."""
        known = any(declared.name == name for declared in self._inputs)
        return name if known else self.input(name, 1, "integer")

    def output(self, value: str, name: str) -> None:
        """Name a value, as an output of the graph."""
        self._nodes.append(helper.make_node("Identity", [value], [name]))
        self.outputs.append(name)

    def op(self, kind: str, *inputs: str, **attributes: Any) -> str:
        """Add a node with one output, and return the output's name."""
        name = f"{kind} {len(self._nodes)}"
        self._nodes.append(helper.make_node(kind, list(inputs), [name], **attributes))
        return name

    def constant(self, value: ArrayLike, dtype: DTypeLike = np.float32) -> str:
        """The name of a constant; equal ones are kept once."""
        array = np.asarray(value, dtype)
        key = (array.dtype.str, str(array.shape), array.tobytes())
        if key not in self._known:
            self._known[key] = f"constant {len(self._known)}"
            self._constants.append(numpy_helper.from_array(array, self._known[key]))
        return self._known[key]

    def integers(self, *values: int) -> str:
        """The name of a list of integers: axes, sizes."""
        return self.constant(values, np.int64)

    def model(self) -> bytes:
        """The graph, as a file."""
        results = [onnx.ValueInfoProto(name=name) for name in self.outputs]
        graph = helper.make_graph(self._nodes, "small requests", self._inputs, results, self._constants)
        opsets: Sequence[onnx.OperatorSetIdProto] = [helper.make_opsetid("", OPSET)]
        made = helper.make_model(graph, opset_imports=opsets, ir_version=_IR_VERSION)
        return made.SerializeToString()
