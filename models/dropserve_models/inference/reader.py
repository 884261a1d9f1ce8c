"""The state of reading a suffix: what is known of its values, and the steps so far."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from dropserve_models.inference.graph import Split
from dropserve_models.inference.program import Array, Site, Step


class Unsupported(Exception):
    """Why one node can't be run; `compile_program` adds which node it is."""


class Reader:
    """Collects the steps of a program."""

    def __init__(self, split: Split, widths: dict[str, int]) -> None:
        self.split = split
        self.widths = widths
        self.sites: list[Site] = []
        self.steps: list[Step] = []
        self.read = set(split.outputs).union(*(node.input for node in split.suffix))

    def emit(self, step: Step, width: int) -> None:
        """Add a step, whose result has `width` units."""
        self.steps.append(step)
        self.widths[step.out] = width

    def value(self, name: str) -> str:
        """The name of a value, made sure to be [rows, units]."""
        if name not in self.widths:
            raise Unsupported(f"its input {name!r} is not a [rows, units] value")
        return name

    def constant(self, name: str) -> NDArray[np.generic]:
        """A constant by its name."""
        if name not in self.split.constants:
            raise Unsupported(f"its input {name!r} must be a constant")
        return self.split.constants[name]

    def operand(self, name: str) -> str | Array:
        """A value's name, or a constant as [units] or [1]."""
        if name not in self.split.constants:
            return self.value(name)
        constant = self.split.constants[name]
        if constant.dtype != np.float32:
            raise Unsupported(f"its constant {name!r} is {constant.dtype}, not float32")
        if constant.ndim > 2 or (constant.ndim == 2 and constant.shape[0] != 1):
            raise Unsupported(f"its constant {name!r} has shape {constant.shape}, which depends on the row")
        return np.atleast_1d(constant.reshape(-1) if constant.ndim else constant).astype(np.float32)

    def unit_axis(self, axis: object) -> None:
        """Make sure that an axis counts the units."""
        if axis not in (1, -1):
            raise Unsupported(f"axis {axis}: only the units (axis 1) can be used, rows stay apart")
