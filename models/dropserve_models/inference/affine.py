"""Where a prediction is affine in the units of the last Dropout, and that function."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from dropserve_models.inference.program import Concat, Drop, Elementwise, Linear, Program, Select

_Form: TypeAlias = tuple[NDArray[np.float64], NDArray[np.float64]]  # weight and offset
_Read: TypeAlias = Callable[[str], _Form | None]


@dataclass(frozen=True, slots=True, eq=False)
class Affine:
    """The prediction as an affine function of a Dropout's output: weight [outputs, units], offset [outputs].

    `x` names the Dropout's input.
    """

    x: str
    weight: NDArray[np.float64]
    offset: NDArray[np.float64]


def find_affine(program: Program, drop: Drop) -> Affine | None:
    """The prediction as an affine function of the Dropout's output, or None where it is not one."""
    producers = {step.out: step for step in program.steps}
    width = program.widths[drop.out]

    def read(name: str) -> _Form | None:
        if name == drop.out:
            return np.eye(width), np.zeros(width)
        step = producers.get(name)
        match step:
            case Linear():
                if (inner := read(step.x)) is None:
                    return None
                weight = step.weight.astype(np.float64)
                bias = np.zeros(len(weight)) if step.bias is None else step.bias
                return weight @ inner[0], weight @ inner[1] + bias
            case Select():
                inner = read(step.x)
                return None if inner is None else (inner[0][step.indices], inner[1][step.indices])
            case Concat():
                parts = [read(x) for x in step.xs]
                known = [part for part in parts if part is not None]
                if len(known) < len(parts):
                    return None
                return np.concatenate([a for a, _ in known]), np.concatenate([b for _, b in known])
            case Elementwise():
                return _elementwise(step, read)
            case _:
                return None

    found = read(program.outputs[0])
    return None if found is None else Affine(drop.x, *found)


def _elementwise(step: Elementwise, read: _Read) -> _Form | None:
    """One value, and constants that are added to it or scale it."""
    values = [arg for arg in step.args if isinstance(arg, str)]
    if len(values) != 1 or (inner := read(values[0])) is None:
        return None
    weight, offset = inner
    if step.op == "Identity":
        return weight, offset
    if step.op == "Neg":
        return -weight, -offset
    if len(step.args) != 2:
        return None
    first = isinstance(step.args[0], str)
    constant = np.asarray(step.args[1 if first else 0], np.float64)
    match step.op:
        case "Add":
            return weight + np.zeros_like(constant)[:, None], offset + constant
        case "Sub":
            sign = 1.0 if first else -1.0
            return sign * weight + np.zeros_like(constant)[:, None], sign * (offset - constant)
        case "Mul":
            return weight * constant[:, None], offset * constant
        case "Div" if first:
            return weight / constant[:, None], offset / constant
        case _:
            return None
