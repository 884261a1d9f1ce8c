"""The networks that are measured, as artifacts: multilayer perceptrons with dropout before each layer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import TypeAlias

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

Parameters: TypeAlias = Sequence[tuple[NDArray[np.float32], NDArray[np.float32]]]
"""Weight [inputs, outputs] and bias [outputs] of each layer."""


@dataclass(frozen=True, slots=True)
class Network:
    """A multilayer perceptron with relu between its layers.

    Attributes
    ----------
    sizes : tuple of int
        Features, units of each hidden layer, outputs.
    rates : tuple of float
        The drop rate on the input of each layer; 0: no Dropout node there.
    softmax : bool
        Whether a softmax follows the last layer (a classifier) or nothing does (a regression).
    """

    sizes: tuple[int, ...]
    rates: tuple[float, ...]
    softmax: bool = True

    @property
    def name(self) -> str:
        """Its sizes, e.g. "30-64-64-2"."""
        return "-".join(map(str, self.sizes))


SMALL = Network((30, 64, 64, 2), (0.0, 0.2, 0.5))
LARGE = Network((784, 256, 256, 10), (0.0, 0.2, 0.5))
REGRESSION = Network((10, 100, 100, 1), (0.0, 0.5, 0.5), softmax=False)


def publish(network: Network, repository: Path, parameters: Parameters | None = None) -> Path:
    """Write the network as ``REPOSITORY/NAME/1/model.onnx``, and return that folder."""
    folder = repository / network.name / "1"
    folder.mkdir(parents=True)
    onnx.save(build(network, parameters), folder / "model.onnx")
    return folder


def initial_parameters(network: Network, seed: int = 0) -> Parameters:
    """Weights as He et al. (2015) draw them, so that activations stay of order 1, and biases of 0."""
    draw = np.random.default_rng(seed)
    return [
        (
            draw.normal(0, np.sqrt(2 / inputs), (inputs, outputs)).astype(np.float32),
            np.zeros(outputs, np.float32),
        )
        for inputs, outputs in pairwise(network.sizes)
    ]


def build(network: Network, parameters: Parameters | None = None) -> onnx.ModelProto:
    """The graph: input `features`, Gemm, Relu and Dropout nodes, output `probabilities` or `mean`.

    Without `parameters`, those of `initial_parameters`.
    """
    nodes, constants = [], [numpy_helper.from_array(np.array(False), "training_mode")]
    layers = zip(parameters or initial_parameters(network), network.rates, strict=True)
    value = "features"
    for layer, ((weight, bias), rate) in enumerate(layers):
        if rate:
            constants.append(numpy_helper.from_array(np.array(rate, np.float32), f"rate{layer}"))
            nodes.append(
                helper.make_node("Dropout", [value, f"rate{layer}", "training_mode"], [f"dropped{layer}"])
            )
            value = f"dropped{layer}"
        constants.append(numpy_helper.from_array(weight, f"weight{layer}"))
        constants.append(numpy_helper.from_array(bias, f"bias{layer}"))
        nodes.append(helper.make_node("Gemm", [value, f"weight{layer}", f"bias{layer}"], [f"linear{layer}"]))
        value = f"linear{layer}"
        if layer + 1 < len(network.rates):
            nodes.append(helper.make_node("Relu", [value], [f"hidden{layer}"]))
            value = f"hidden{layer}"
    output = "probabilities" if network.softmax else "mean"
    nodes.append(
        helper.make_node("Softmax", [value], [output], axis=1)
        if network.softmax
        else helper.make_node("Identity", [value], [output])
    )
    graph = helper.make_graph(
        nodes,
        network.name,
        [_rows_of("features", network.sizes[0])],
        [_rows_of(output, network.sizes[-1])],
        constants,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model)
    return model


def _rows_of(name: str, columns: int) -> onnx.ValueInfoProto:
    shape: Sequence[str | int] = ["rows", columns]
    return helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)
