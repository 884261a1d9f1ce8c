"""Splitting an ONNX graph at its first Dropout.

The suffix is every node that depends on a Dropout's output, the Dropouts included; it has to be run once
a pass. All the rest is the prefix, deterministic, and run once a request by ONNX Runtime, whatever its
operations. The suffix sees the prefix through the boundary: the tensors that cross from one to the other.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, inliner, numpy_helper

from dropserve_models.errors import ArtifactError

DROPOUT_DEFAULT_RATIO = 0.5
"""What the ONNX specification gives a Dropout node without a ratio."""


@dataclass(frozen=True, slots=True)
class Split:
    """A graph, cut in two.

    Attributes
    ----------
    prefix : onnx.ModelProto or None
        Computes `boundary` from the model's input; None where the input itself is the only boundary.
    boundary : tuple of str
        Tensors that suffix nodes read and the prefix (or the model's input) provides.
    suffix : tuple of onnx.NodeProto
        In topological order.
    constants : dict of ndarray
        Every constant the suffix may read: initializers, Constant nodes and what is computed from them.
    outputs : tuple of str
        The graph's outputs, in order; those that no Dropout reaches are in `boundary`.
    rates : dict of float
        The drop rate of each active Dropout node, by the name of its output.
    """

    prefix: onnx.ModelProto | None
    boundary: tuple[str, ...]
    suffix: tuple[onnx.NodeProto, ...]
    constants: dict[str, NDArray[np.generic]]
    outputs: tuple[str, ...]
    rates: dict[str, float]


def split(model: onnx.ModelProto) -> Split:
    """Cut `model` at its first Dropout.

    Raises
    ------
    ArtifactError
        A Dropout is in training mode or has a rate that is not a constant within [0, 1).
    """
    if model.functions:
        model = inliner.inline_local_functions(model)  # there may be Dropouts inside
    graph = model.graph
    constants = _constants(model)
    rates = {}
    for node in graph.node:
        if node.op_type == "Dropout":
            rate = _rate(node, constants)
            if rate > 0.0:
                rates[node.output[0]] = rate
    stochastic: set[str] = set()
    suffix = []
    for node in graph.node:
        if node.output[0] in rates or not stochastic.isdisjoint(_reads(node)):
            suffix.append(node)
            stochastic.update(filter(None, node.output))
    outputs = tuple(output.name for output in graph.output)
    read = [name for node in suffix for name in node.input if name]
    read += outputs
    boundary = tuple(dict.fromkeys(name for name in read if name not in stochastic and name not in constants))
    if not suffix:
        return Split(None, (), (), {}, outputs, rates)
    used = {name: constants[name] for name in read if name in constants}
    return Split(_prefix(model, boundary), boundary, tuple(suffix), used, outputs, rates)


def undivided(model: onnx.ModelProto) -> Split:
    """A graph without active Dropouts, a prefix say, as if all of it were suffix."""
    constants = _constants(model)
    nodes = tuple(node for node in model.graph.node if node.output[0] not in constants)
    outputs = tuple(output.name for output in model.graph.output)
    return Split(None, tuple(value.name for value in _inputs(model)), nodes, constants, outputs, {})


def attributes(node: onnx.NodeProto) -> dict[str, object]:
    """The node's attributes as Python values."""
    return {attribute.name: helper.get_attribute_value(attribute) for attribute in node.attribute}


def _rate(node: onnx.NodeProto, constants: dict[str, NDArray[np.generic]]) -> float:
    """The drop rate of a Dropout node: an attribute before opset 12, an input from then on."""
    where = f"Dropout node {node.name or node.output[0]!r}"
    rate = DROPOUT_DEFAULT_RATIO
    given = attributes(node).get("ratio")
    if given is not None:
        rate = float(given)  # type: ignore[arg-type]  # an ONNX float attribute
    if len(node.input) > 1 and node.input[1]:
        if node.input[1] not in constants:
            raise ArtifactError(f"{where}: its ratio is computed by the graph; export it as a constant")
        rate = float(constants[node.input[1]].reshape(()))
    if len(node.input) > 2 and node.input[2]:
        training = constants.get(node.input[2])
        if training is None or bool(training.reshape(())):
            raise ArtifactError(
                f"{where} is in training mode; export the model in eval mode, Dropout nodes kept"
            )
    rate = float(str(np.float32(rate)))  # 0.2 and not 0.20000000298, its float32 value
    if not 0.0 <= rate < 1.0:
        raise ArtifactError(f"{where} has drop rate {rate:g}; it must be at least 0 and less than 1")
    return rate


def _reads(node: onnx.NodeProto) -> set[str]:
    """The values a node depends on: its inputs, and what its subgraphs take from outside."""
    names = set(filter(None, node.input))
    for attribute in node.attribute:
        for graph in (attribute.g, *attribute.graphs):
            inside = {tensor.name for tensor in graph.initializer} | {value.name for value in graph.input}
            inside.update(name for inner in graph.node for name in inner.output)
            read = {value.name for value in graph.output}.union(*map(_reads, graph.node))
            names |= read - inside
    return names


def _constants(model: onnx.ModelProto) -> dict[str, NDArray[np.generic]]:
    """Initializers, Constant nodes, and the values of all nodes that depend on nothing else."""
    graph = model.graph
    constants: dict[str, NDArray[np.generic]] = {
        tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer
    }
    folded = []
    known = set(constants)
    for node in graph.node:
        if node.op_type != "Dropout" and _reads(node) <= known:
            folded.append(node)
            known.update(node.output)
    if folded:
        constants |= _evaluate(model, folded)
    return constants


def _evaluate(model: onnx.ModelProto, nodes: list[onnx.NodeProto]) -> dict[str, NDArray[np.generic]]:
    """The outputs of nodes that need no input, computed by ONNX Runtime."""
    import onnxruntime

    names = [name for node in nodes for name in node.output if name]
    outputs = [onnx.ValueInfoProto(name=name) for name in names]
    graph = helper.make_graph(nodes, "constants", [], outputs, list(model.graph.initializer))
    constant_model = _like(model, graph)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 4
    session = onnxruntime.InferenceSession(
        constant_model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    return dict(zip(names, session.run(names, {}), strict=True))


def _prefix(model: onnx.ModelProto, boundary: tuple[str, ...]) -> onnx.ModelProto | None:
    """The model that computes `boundary`, or None where that is the input itself."""
    inputs = {value.name for value in _inputs(model)}
    wanted = [name for name in boundary if name not in inputs]
    if not wanted:
        return None
    needed = set(wanted)
    nodes = []
    for node in reversed(model.graph.node):
        if any(name in needed for name in node.output):
            nodes.append(node)
            needed |= _reads(node)
    initializers = [tensor for tensor in model.graph.initializer if tensor.name in needed]
    outputs = [onnx.ValueInfoProto(name=name) for name in wanted]
    graph = helper.make_graph(nodes[::-1], "prefix", _inputs(model), outputs, initializers)
    return _like(model, graph)


def _inputs(model: onnx.ModelProto) -> list[onnx.ValueInfoProto]:
    """What a caller has to give. Before IR version 4 every initializer was listed as an input too."""
    initialized = {tensor.name for tensor in model.graph.initializer}
    return [value for value in model.graph.input if value.name not in initialized]


def _like(model: onnx.ModelProto, graph: onnx.GraphProto) -> onnx.ModelProto:
    """A model around `graph`, with the opsets, IR version and local functions of `model`."""
    made = helper.make_model(graph, opset_imports=list(model.opset_import), functions=list(model.functions))
    made.ir_version = model.ir_version
    return made
