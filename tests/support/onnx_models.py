"""Small ONNX networks with Dropout nodes, made by hand: nothing here comes from our trainer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import ArrayLike, DTypeLike, NDArray
from onnx import TensorProto, helper, numpy_helper

Array = NDArray[np.float32]


@dataclass(frozen=True)
class Mlp:
    """A multilayer perceptron: relu between layers, dropout before each (rate 0: no node).

    Attributes
    ----------
    weights : list of ndarray [in, out]
    biases : list of ndarray [out]
    rates : list of float
        The drop rate before each linear layer, the first one's being the input's.
    last : {"", "Softmax", "Sigmoid"}
        What follows the last layer.
    """

    weights: list[Array]
    biases: list[Array]
    rates: list[float]
    last: str = ""

    def forward(self, x: Array, masks: Sequence[NDArray[Any] | None]) -> NDArray[np.float64]:
        """A pass in float64, with a mask (0 or 1/(1-p)) [units] before each layer; None: no dropout.

        Masks [passes, 1, units] give all passes at once, [passes, rows, outputs].
        """
        h = x.astype(np.float64)
        for i, (weight, bias, mask) in enumerate(zip(self.weights, self.biases, masks, strict=True)):
            h = (h if mask is None else h * mask.astype(np.float64)) @ weight.astype(np.float64) + bias
            if i + 1 < len(self.weights):
                h = np.maximum(h, 0.0)
        if self.last == "Softmax":
            h = np.exp(h - h.max(axis=-1, keepdims=True))
            h /= h.sum(axis=-1, keepdims=True)
        if self.last == "Sigmoid":
            h = 1.0 / (1.0 + np.exp(-h))
        return h

    def onnx(self, *, gemm: bool = False, opset: int = 17) -> bytes:
        """Serialised; layers as MatMul + Add, or as Gemm with transposed weights."""
        nodes, initializers = [], []

        def initializer(name: str, value: Array | np.float32 | np.bool_) -> str:
            initializers.append(numpy_helper.from_array(np.asarray(value), name))
            return name

        x = "features"
        for i, (weight, bias, rate) in enumerate(zip(self.weights, self.biases, self.rates, strict=True)):
            if rate > 0.0:
                ratio = initializer(f"ratio_{i}", np.float32(rate))
                training = initializer(f"training_{i}", np.bool_(False))
                nodes.append(
                    helper.make_node("Dropout", [x, ratio, training], [f"dropped_{i}"], name=f"dropout_{i}")
                )
                x = f"dropped_{i}"
            b = initializer(f"bias_{i}", bias)
            if gemm:
                w = initializer(f"weight_{i}", np.ascontiguousarray(weight.T))
                nodes.append(helper.make_node("Gemm", [x, w, b], [f"linear_{i}"], name=f"gemm_{i}", transB=1))
            else:
                w = initializer(f"weight_{i}", weight)
                nodes.append(helper.make_node("MatMul", [x, w], [f"product_{i}"], name=f"matmul_{i}"))
                nodes.append(helper.make_node("Add", [f"product_{i}", b], [f"linear_{i}"], name=f"add_{i}"))
            x = f"linear_{i}"
            if i + 1 < len(self.weights):
                nodes.append(helper.make_node("Relu", [x], [f"hidden_{i}"], name=f"relu_{i}"))
                x = f"hidden_{i}"
        nodes.append(helper.make_node(self.last or "Identity", [x], ["prediction"], name="last"))
        return model(nodes, initializers, self.weights[0].shape[0], self.weights[-1].shape[1], opset)


def mlp(sizes: Sequence[int], rates: Sequence[float], *, last: str = "", seed: int = 0) -> Mlp:
    """A random network, e.g. ``mlp([784, 256, 256, 10], [0, .2, .5], last="Softmax")``, He-initialised."""
    rng = np.random.default_rng(seed)
    weights = [
        (rng.standard_normal((m, n)) * np.sqrt(2.0 / m)).astype(np.float32) for m, n in pairwise(sizes)
    ]
    biases = [(0.1 * rng.standard_normal(n)).astype(np.float32) for n in sizes[1:]]
    return Mlp(weights, biases, list(rates), last)


def model(
    nodes: list[onnx.NodeProto],
    initializers: list[onnx.TensorProto],
    features: int,
    outputs: int | Mapping[str, int],
    opset: int = 17,
    name: str = "prediction",
) -> bytes:
    """A model with the input `features`, serialised.

    `outputs` is the width of the one output called `name`, or the widths of several by name.
    """
    widths = {name: outputs} if isinstance(outputs, int) else outputs
    graph = helper.make_graph(
        nodes,
        "network",
        [helper.make_tensor_value_info("features", TensorProto.FLOAT, ["rows", features])],
        [
            helper.make_tensor_value_info(out, TensorProto.FLOAT, ["rows", width])
            for out, width in widths.items()
        ],
        initializers,
    )
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)
    onnx.checker.check_model(made, full_check=True)
    return made.SerializeToString()


def node(op: str, inputs: str, outputs: str, **attributes: Any) -> onnx.NodeProto:
    """A node, its inputs and outputs separated by blanks; "-" is an input left out."""
    names = ["" if name == "-" else name for name in inputs.split()]
    return helper.make_node(op, names, outputs.split(), name=f"{op}_to_{outputs.split()[0]}", **attributes)


def constant(name: str, value: ArrayLike, dtype: DTypeLike = np.float32) -> onnx.TensorProto:
    """An initializer."""
    return numpy_helper.from_array(np.asarray(value, dtype), name)


def publish(repository: Path, name: str, data: bytes, version: int = 1) -> Path:
    """Write a folder with model.onnx alone, as another tool would."""
    folder = repository / name / str(version)
    folder.mkdir(parents=True)
    (folder / "model.onnx").write_bytes(data)
    return folder


def noisy_regression() -> bytes:
    """Of 4 features, with dropout: two targets, each with a noise variance of its own."""
    rng = np.random.default_rng(3)
    constants = [
        constant("half", 0.4), constant("v", rng.normal(size=(4, 12))),
        constant("w", rng.normal(size=(12, 2))), constant("u", rng.normal(size=(12, 2)) / 4.0),
    ]  # fmt: skip
    nodes = [
        node("MatMul", "features v", "a"), node("Relu", "a", "h"), node("Dropout", "h half", "d"),
        node("MatMul", "d w", "prediction"), node("MatMul", "d u", "s"), node("Exp", "s", "noise_variance"),
    ]  # fmt: skip
    return model(nodes, constants, 4, {"prediction": 2, "noise_variance": 2})
