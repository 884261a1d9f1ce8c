"""An ONNX graph in the making."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from dropserve_models.training.activations import LEAKY_SLOPE
from dropserve_models.training.config import Activation
from dropserve_models.training.normalisation import EPSILON, LayerNorm
from dropserve_models.training.standardise import Scaling
from dropserve_models.training.table import Floats


@dataclass
class Graph:
    """Nodes and constants as they come, named ``part/Operation``."""

    nodes: list[onnx.NodeProto] = field(default_factory=list)
    initializers: list[onnx.TensorProto] = field(default_factory=list)

    def constant(self, name: str, value: NDArray[Any]) -> str:
        """A constant, by its name."""
        self.initializers.append(numpy_helper.from_array(value, name))
        return name

    def node(
        self, part: str, operation: str, inputs: list[str], output: str | None = None, **attributes: Any
    ) -> str:
        """An operation with one output, whose name is returned."""
        name = f"{part}/{operation}"
        output = output or f"{name}:0"
        self.nodes.append(helper.make_node(operation, inputs, [output], name=name, **attributes))
        return output

    def split(self, part: str, inputs: list[str], outputs: list[str]) -> list[str]:
        """Units side by side, taken apart."""
        self.nodes.append(helper.make_node("Split", inputs, outputs, name=f"{part}/Split", axis=1))
        return outputs

    def scale(self, part: str, x: str, scaling: Scaling) -> str:
        """Standardised columns."""
        shifted = self.node(part, "Sub", [x, self.constant(f"{part}/mean", scaling.mean)])
        return self.node(part, "Div", [shifted, self.constant(f"{part}/std", scaling.std)])

    def unscale(self, output: str, x: str, scaling: Scaling) -> None:
        """Columns in their own units, as an output of the graph."""
        scaled = self.node(output, "Mul", [x, self.constant(f"{output}/std", scaling.std)])
        self.node(output, "Add", [scaled, self.constant(f"{output}/offset", scaling.mean)], output)

    def linear(self, part: str, x: str, weight: Floats, bias: Floats) -> str:
        """A linear layer, weights [in, out]."""
        constants = [self.constant(f"{part}/weight", weight), self.constant(f"{part}/bias", bias)]
        return self.node(part, "Gemm", [x, *constants])

    def layer_norm(self, part: str, x: str, norm: LayerNorm) -> str:
        """Normalised over the units."""
        constants = [
            self.constant(f"{part}/{name}", leaf[0, 0].numpy())
            for name, leaf in (("norm_scale", norm.scale), ("norm_shift", norm.shift))
        ]
        return self.node(part, "LayerNormalization", [x, *constants], axis=-1, epsilon=EPSILON)

    def dropout(self, part: str, x: str, rate: float) -> str:
        """A Dropout node, unless the rate is 0."""
        if rate == 0.0:
            return x
        ratio = self.constant(f"{part}/drop_rate", np.array(rate, np.float32))
        training = self.constant(f"{part}/training_mode", np.array(False))
        return self.node(part, "Dropout", [x, ratio, training])

    def activation(self, part: str, x: str, activation: Activation) -> str:
        """An activation, as opset 17 has it."""
        if activation == "silu":
            return self.node(part, "Mul", [x, self.node(part, "Sigmoid", [x])])
        if activation == "gelu":
            return self._gelu(part, x)
        if activation == "leaky_relu":
            return self.node(part, "LeakyRelu", [x], alpha=LEAKY_SLOPE)
        return self.node(part, {"relu": "Relu", "tanh": "Tanh"}[activation], [x])

    def _gelu(self, part: str, x: str) -> str:
        # x (1 + erf(x / sqrt 2)) / 2: Gelu is an operation of its own only from opset 20 on.
        root = self.constant(f"{part}/sqrt_2", np.array(np.sqrt(2.0), np.float32))
        one = self.constant(f"{part}/one", np.array(1.0, np.float32))
        half = self.constant(f"{part}/half", np.array(0.5, np.float32))
        error = self.node(part, "Erf", [self.node(part, "Div", [x, root])])
        share = self.node(part, "Mul", [self.node(part, "Add", [error, one]), half], f"{part}/share")
        self.nodes[-1].name = f"{part}/HalfMul"
        return self.node(part, "Mul", [x, share])
