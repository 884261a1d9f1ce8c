"""The trained pipeline as an ONNX graph, Dropout nodes kept, and the proof that it computes the same."""

from __future__ import annotations

import importlib.metadata
from typing import Any

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from onnx import TensorProto, helper

from dropserve_models.errors import ExportError
from dropserve_models.inference.deterministic import Session
from dropserve_models.training.encoding_graph import encode
from dropserve_models.training.losses import LOG_VARIANCE_MAX, LOG_VARIANCE_MIN
from dropserve_models.training.network import Network
from dropserve_models.training.normalisation import EPSILON, BatchNorm, LayerNorm
from dropserve_models.training.onnx_graph import Graph
from dropserve_models.training.pipeline import Pipeline
from dropserve_models.training.table import Floats

OPSET = 17
IR_VERSION = 8  # the IR version of opset 17's time: runtimes of 2022 can read the file
TOLERANCE = 1e-5


def export(pipeline: Pipeline) -> bytes:
    """Build the graph: input `features` [rows, features], float32.

    Outputs are `probabilities` [rows, classes]; or `mean` [rows, targets] and, where the model predicts
    noise, `noise_variance` [rows, targets], in the targets' units and their squares.

    Raises
    ------
    ExportError
        onnx.checker refuses the graph.
    """
    graph = Graph()
    network = pipeline.network
    x = encode(graph, "features", pipeline.encoding, [table[0].numpy() for table in network.tables])
    for index in range(len(network.weights)):
        source = f"hidden_{index}" if index else "input"
        last = index == len(network.weights) - 1
        layer = "output" if last else f"hidden_{index + 1}"
        before = x
        x = graph.dropout(source, x, pipeline.drop_rates[index])
        x = graph.linear(layer, x, *_linear(network, index))
        if last:
            break
        if network.norms and isinstance(norm := network.norms[index], LayerNorm):
            x = graph.layer_norm(layer, x, norm)
        x = graph.activation(layer, x, network.activation)
        if network.skips[index]:
            x = graph.node(f"{layer}/skip", "Add", [x, before])
    outputs = _head(graph, x, pipeline)

    width = len(pipeline.output_names)
    model = helper.make_model(
        helper.make_graph(
            graph.nodes,
            "dropout_mlp",
            [
                helper.make_tensor_value_info(
                    "features", TensorProto.FLOAT, ["rows", len(pipeline.feature_names)]
                )
            ],
            [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["rows", width]) for name in outputs],
            initializer=graph.initializers,
        ),
        opset_imports=[helper.make_opsetid("", OPSET)],
        ir_version=IR_VERSION,
        producer_name="dropserve",
        producer_version=importlib.metadata.version("dropserve"),
    )
    try:
        onnx.checker.check_model(model, full_check=True)
    except Exception as error:  # onnx raises its own errors of several unrelated classes
        raise ExportError(f"the exported graph is not valid: {str(error).splitlines()[0]}") from error
    return model.SerializeToString()


def run(model_bytes: bytes, features: Floats) -> dict[str, Floats]:
    """Answers of the exported graph, computed by ONNX Runtime on the CPU, by output name."""
    session = Session(model_bytes, device="cpu")
    return dict(zip(session.outputs, session.run(features), strict=True))


def verify(model_bytes: bytes, pipeline: Pipeline, features: Floats) -> float:
    """The largest relative difference between the graph in ONNX Runtime and the pipeline in torch.

    Raises
    ------
    ExportError
        It is above 1e-5, or an answer is not finite.
    """
    expected = pipeline.predict(features)
    found = run(model_bytes, features)
    worst = 0.0
    for name, reference in expected.items():
        difference = relative_difference(found[name], reference)
        if not difference <= TOLERANCE:
            raise ExportError(
                f"ONNX Runtime and torch differ by {difference:.1e} relative in {name!r}, "
                f"more than {TOLERANCE:.0e}: not published"
            )
        worst = max(worst, difference)
    return worst


def relative_difference(found: NDArray[Any], reference: NDArray[Any]) -> float:
    """max |found - reference| / max(|reference|, s), with s the standard deviation of its column.

    Relative to the value or to the column's spread, whichever is larger: an output that happens to
    pass through zero is not held to digits it can't have. NaN where anything is not finite.
    """
    exact = reference.astype(np.float64)
    scale = np.maximum(np.abs(exact), exact.std(axis=0))
    difference = np.abs(found - exact)
    return float(np.max(difference / np.where(scale > 0, scale, 1.0), initial=0.0))


def _linear(network: Network, index: int) -> tuple[Floats, Floats]:
    """Weights [in, out] and biases [out] of a layer; batch norm, affine in eval mode, is folded into them."""
    weight, bias = network.weights[index][0].double(), network.biases[index][0, 0].double()
    if index < len(network.norms) and isinstance(norm := network.norms[index], BatchNorm):
        scale, shift, mean, variance = (
            leaf[0, 0].double() for leaf in (norm.scale, norm.shift, norm.mean, norm.variance)
        )
        factor = scale * torch.rsqrt(variance + EPSILON)
        weight, bias = weight * factor[:, None], (bias - mean) * factor + shift
    return weight.float().T.contiguous().numpy(), bias.float().numpy()


def _head(graph: Graph, x: str, pipeline: Pipeline) -> list[str]:
    scaling = pipeline.target_scaling
    if scaling is None:
        graph.node("output", "Softmax", [x], "probabilities", axis=1)
        return ["probabilities"]
    if not pipeline.predicts_noise:
        graph.unscale("mean", x, scaling)
        return ["mean"]
    targets = len(pipeline.output_names)
    sizes = graph.constant("output/sizes", np.array([targets, targets], np.int64))
    centre, log_variance = graph.split("output", [x, sizes], ["output/mean", "output/log_variance"])
    graph.unscale("mean", centre, scaling)
    bounds = [
        graph.constant(f"noise/{name}", np.array(value, np.float32))
        for name, value in (("min", LOG_VARIANCE_MIN), ("max", LOG_VARIANCE_MAX))
    ]
    variance = graph.node("noise", "Exp", [graph.node("noise", "Clip", [log_variance, *bounds])])
    scale = graph.constant("noise/scale", pipeline.noise_unit)
    graph.node("noise", "Mul", [variance, scale], "noise_variance")
    return ["mean", "noise_variance"]
