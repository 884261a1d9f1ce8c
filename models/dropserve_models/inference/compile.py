"""Reading the suffix of an ONNX graph, and its prefix where it can be, into a `Program`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

import numpy as np
import onnx

from dropserve_models.errors import MonteCarloUnavailable
from dropserve_models.inference.graph import Split, undivided
from dropserve_models.inference.onnx_operators import read
from dropserve_models.inference.program import Elementwise, Linear, Program, Step, arguments
from dropserve_models.inference.reader import Reader, Unsupported


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
    reader = Reader(split, dict(widths))
    needed = set(wanted)
    nodes = []
    for node in reversed(split.suffix):
        if needed.intersection(node.output):
            nodes.append(node)
            needed.update(node.input)
    for node in reversed(nodes):
        try:
            read(reader, node)
        except Unsupported as error:
            name = f" ({node.name})" if node.name else ""
            raise MonteCarloUnavailable(
                f"operation {node.op_type}{name} after the first Dropout is not supported: {error}"
            ) from None
    if not reader.sites:
        raise MonteCarloUnavailable("no output depends on a Dropout node, so every pass would be the same")
    steps = _fold_biases(reader.steps, wanted)
    boundary = tuple(name for name in split.boundary if name in needed)
    return Program(steps, reader.widths, boundary, tuple(reader.sites), wanted)


def compile_prefix(prefix: onnx.ModelProto, features: int) -> Program | None:
    """Read a prefix; None where one of its operations is not supported."""
    split = undivided(prefix)
    reader = Reader(split, dict.fromkeys(split.boundary, features))
    try:
        for node in split.suffix:
            read(reader, node)
    except Unsupported:
        return None
    steps = _fold_biases(reader.steps, split.outputs)
    return Program(steps, reader.widths, split.boundary, (), split.outputs)


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
