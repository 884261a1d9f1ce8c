"""The steps of a program as ONNX nodes.

Values are laid out [rows, 1 or passes or draws, units]; what no Dropout reaches has one pass and broadcasts.
A pass may draw the masks of the last Dropout several times: what depends on these has an entry a draw, those
of a pass side by side.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from dropserve_models.inference.affine import Affine
from dropserve_models.inference.linearisation import Linearisation
from dropserve_models.inference.program import (
    Array,
    Concat,
    Drop,
    Elementwise,
    Linear,
    Mean,
    Program,
    Select,
    Softmax,
    Step,
    arguments,
)
from dropserve_models.inference.small.elementwise import write_elementwise
from dropserve_models.inference.small.writer import Writer

ONCE, A_PASS, A_DRAW = 0, 1, 2
"""How often a value is there: once, once a pass, once a draw."""

PASSES, DRAWS, DRAWS_A_PASS = "passes", "draws", "draws a pass"


def boundary_name(value: str) -> str:
    """The input that holds a value of the boundary."""
    return f"boundary {value}"


def mask_name(site: int) -> str:
    """The input that holds the masks of a site: 0, or 1/(1-p)."""
    return f"mask {site}"


class Suffix:
    """Writes the steps of a program into a graph.

    Its inputs are the boundary [rows, units] (see `boundary_name`), the masks [rows or 1, passes, units] of
    each site (`mask_name`), those of the tail [rows or 1, passes, draws a pass, units]; and, where something
    has to be repeated, the lists of one integer `PASSES`, `DRAWS` and `DRAWS_A_PASS`.

    Parameters
    ----------
    tail : int
        The site that may be drawn several times a pass.
    """

    def __init__(self, writer: Writer, program: Program, tail: int) -> None:
        self._writer = writer
        self._program = program
        self._tail = tail
        self._values: dict[str, tuple[str, int]] = {}  # the name in the graph, and how often it is there
        axis = writer.integers(1)
        for name in program.boundary:
            boundary = writer.input(boundary_name(name), 2)
            self._values[name] = writer.op("Unsqueeze", boundary, axis), ONCE

    def write(self, steps: Sequence[Step]) -> None:
        """Add steps, in order."""
        for step in steps:
            self._values[step.out] = self._write(step)

    def value(self, name: str, often: int | None = None) -> str:
        """The graph's name of a value, made to be there at least `often`."""
        found, there = self._values[name]
        if often is None or there >= often:
            return found
        made = self._repeated(found, name, there, often)
        self._values[name] = (made, often)
        return made

    def closed(self, affine: Affine, rate: float) -> tuple[str, str]:
        """The mean and the variance of the prediction over the last masks, each [rows, passes, outputs]."""
        writer, hidden = self._writer, self.value(affine.x, A_PASS)
        mean = writer.op("MatMul", hidden, writer.constant(affine.weight.T))
        spread = writer.constant(np.square(affine.weight.T) * (rate / (1.0 - rate)))
        within = writer.op("MatMul", writer.op("Mul", hidden, hidden), spread)
        return writer.op("Add", mean, writer.constant(affine.offset)), within

    def corrected(self, mean: str, within: str, linearisation: Linearisation) -> tuple[str, str]:
        """Both less what is known of them; see `control_variate`. Each [rows, passes, outputs]."""
        op = self._writer.op
        self.write(linearisation.program.steps)
        linear = op("Neg", self._beside(linearisation.totals, 2))
        for site, gradients in linearisation.gradients.items():
            by_units = op("Transpose", self._beside(gradients, 1), perm=[0, 2, 1])
            linear = op("Add", linear, op("MatMul", mask_name(site), by_units))
        residual = op("Sub", mean, linear)
        away = op("Sub", residual, self.value(linearisation.centre))
        twice = op("Mul", op("Add", linear, linear), away)
        known = op("Add", twice, self._beside(linearisation.spreads, 2))
        return residual, op("Add", within, known)

    def _beside(self, names: Sequence[str], axis: int) -> str:
        values = [self.value(name) for name in names]
        return values[0] if len(values) == 1 else self._writer.op("Concat", *values, axis=axis)

    def _write(self, step: Step) -> tuple[str, int]:
        writer = self._writer
        match step:
            case Drop():
                return self._drop(step)
            case Linear():
                x, often = self._values[step.x]
                product = writer.op("MatMul", x, writer.constant(step.weight.T))
                if step.bias is None:
                    return product, often
                return writer.op("Add", product, writer.constant(step.bias)), often
            case Elementwise():
                often = self._often(arguments(step))
                operands = [self._operand(arg, often) for arg in step.args]
                return write_elementwise(writer, step, operands), often
            case Softmax():
                x, often = self._values[step.x]
                return writer.op("LogSoftmax" if step.log else "Softmax", x, axis=-1), often
            case Select():
                x, often = self._values[step.x]
                return writer.op("Gather", x, writer.integers(*step.indices.tolist()), axis=2), often
            case Concat():
                often = self._often(step.xs)
                return writer.op("Concat", *(self.value(x, often) for x in step.xs), axis=2), often
            case Mean():
                x, often = self._values[step.x]
                return writer.op("ReduceMean", x, writer.integers(2), keepdims=1), often

    def _drop(self, step: Drop) -> tuple[str, int]:
        writer = self._writer
        x, _ = self._values[step.x]
        if step.site != self._tail:
            return writer.op("Mul", x, writer.input(mask_name(step.site), 3)), A_PASS
        mask = writer.input(mask_name(step.site), 4)
        dropped = writer.op("Mul", writer.op("Unsqueeze", x, writer.integers(2)), mask)
        return writer.op("Reshape", dropped, writer.integers(0, -1, self._program.widths[step.out])), A_DRAW

    def _operand(self, arg: str | Array, often: int) -> str:
        if not isinstance(arg, str):
            return self._writer.constant(arg)
        # One entry broadcasts; one a pass does not where others have one a draw.
        return self.value(arg, often if self._values[arg][1] == A_PASS else None)

    def _often(self, names: Sequence[str]) -> int:
        return max(self._values[name][1] for name in names)

    def _repeated(self, value: str, name: str, there: int, often: int) -> str:
        writer = self._writer
        one = writer.integers(1)
        if there == ONCE:
            count = writer.count(PASSES if often == A_PASS else DRAWS)
            return writer.op("Expand", value, writer.op("Concat", one, count, one, axis=0))
        shape = writer.op("Concat", one, one, writer.count(DRAWS_A_PASS), one, axis=0)
        repeated = writer.op("Expand", writer.op("Unsqueeze", value, writer.integers(2)), shape)
        return writer.op("Reshape", repeated, writer.integers(0, -1, self._program.widths[name]))
