"""The suffix of a graph as a short list of steps that a tensor library can run.

Values are features by row, one column of an ONNX [rows, units] tensor being one unit; a step never mixes
rows. Everything here is plain data: no torch.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

Array: TypeAlias = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Drop:
    """Multiply each unit by its mask: 0, or 1/(1-p)."""

    out: str
    x: str
    site: int


@dataclass(frozen=True, slots=True, eq=False)
class Linear:
    """weight @ x + bias, with weight [out, in] and bias [out]."""

    out: str
    x: str
    weight: Array
    bias: Array | None


@dataclass(frozen=True, slots=True, eq=False)
class Elementwise:
    """An operation unit by unit. Arguments are values by name, or constants [units] or [1]."""

    out: str
    op: str
    args: tuple[str | Array, ...]
    attributes: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Softmax:
    """Over the units; its logarithm where `log`."""

    out: str
    x: str
    log: bool


@dataclass(frozen=True, slots=True, eq=False)
class Select:
    """The units at `indices`, in this order."""

    out: str
    x: str
    indices: NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Concat:
    """The units of several values, one after the other."""

    out: str
    xs: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Mean:
    """The mean over the units, as one unit."""

    out: str
    x: str


Step: TypeAlias = Drop | Linear | Elementwise | Softmax | Select | Concat | Mean


@dataclass(frozen=True, slots=True)
class Site:
    """A Dropout node: its rate p and the number of units it masks."""

    rate: float
    units: int


@dataclass(frozen=True, slots=True)
class Program:
    """A suffix, ready to run.

    Attributes
    ----------
    steps : tuple of Step
        In the order to run them.
    widths : dict of int
        The number of units of every value, boundary values included.
    boundary : tuple of str
        The values that the prefix provides.
    sites : tuple of Site
        The Dropout nodes, in order of application; `Drop.site` is an index into it.
    outputs : tuple of str
        The values asked for.
    """

    steps: tuple[Step, ...]
    widths: Mapping[str, int]
    boundary: tuple[str, ...]
    sites: tuple[Site, ...]
    outputs: tuple[str, ...]


def leading_to(steps: Sequence[Step], wanted: Iterable[str]) -> list[Step]:
    """The steps that values are computed by, in order."""
    needed = set(wanted)
    found: list[Step] = []
    for step in reversed(steps):
        if step.out in needed:
            needed.update(arguments(step))
            found.append(step)
    return found[::-1]


def arguments(step: Step) -> tuple[str, ...]:
    """The names of the values that a step reads."""
    match step:
        case Elementwise():
            return tuple(arg for arg in step.args if isinstance(arg, str))
        case Concat():
            return step.xs
        case _:
            return (step.x,)


def read_once(program: Program) -> set[str]:
    """The results of linear layers that one step alone reads: it may overwrite them."""
    linear = {step.out for step in program.steps if isinstance(step, Linear)} - set(program.outputs)
    readers = Counter(name for step in program.steps for name in arguments(step))
    return {name for name in linear if readers[name] == 1}
