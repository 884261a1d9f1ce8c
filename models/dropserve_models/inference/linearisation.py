"""A network as an affine function of its masks, so that part of its variance need not be estimated.

Around the mean of every value, each operation is replaced by an affine one. For an operation f of a unit
with mean z and standard deviation s its slope is statistical,

    slope = (f(z + c s) - f(z - c s)) / (2 c s)

a derivative averaged over where the unit really is: a relu counts as much as it is active. (Statistical
linearisation by sigma points: Lefebvre, Bruyninckx & De Schutter, comment on "A new method for the nonlinear
transformation of means and covariances in filters and estimators", 2002.) For s, units are taken to be
uncorrelated. What is left is

    prediction ~ centre + l,    l = sum_i g_i (m_i - 1)

over the masks before the last dropout, whose mean is 0 and whose variance is sum_i p/(1-p) g_i^2, whichever
way the masks of the passes are stratified. What is done with it, and why that is exact however rough the
approximation, is said in `control_variate`.

All this is written as steps, which every engine runs in its own way; they cost about three passes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np

from dropserve_models.inference.affine import Affine
from dropserve_models.inference.program import (
    Array,
    Drop,
    Elementwise,
    Linear,
    Program,
    Step,
    arguments,
    leading_to,
)

MOST_OUTPUTS = 8
"""Every output takes a pass's work of its own; with more of them it would no longer be small."""
SPREAD = 1.6
"""The c above: a relu's slope is then within .06 of the probability that a normal unit is positive."""

_TINY = float(np.finfo(np.float32).tiny)
"""Added to variances that something is divided by the square root of."""

_SMOOTH = frozenset((
    "Abs", "Celu", "Clip", "Elu", "Erf", "Gelu", "GeluTanh", "HardSigmoid", "HardSwish", "Identity",
    "LeakyRelu", "Max", "Min", "Mish", "Mul", "Neg", "PRelu", "Relu", "Selu", "Sigmoid", "Softplus",
    "Softsign", "Swish", "Tanh", "ThresholdedRelu",
))  # fmt: skip
_SUMS = frozenset(("Add", "Sub", "Sum"))

_Operand: TypeAlias = str | Array


@dataclass(frozen=True, slots=True)
class Linearisation:
    """An affine approximation.

    Attributes
    ----------
    program : Program
        Computes, from the boundary, all that is named below; it has no Dropout.
    gradients : mapping of tuple of str
        By site: the g of its units, for each output, [units].
    totals, spreads : tuple of str
        For each output, of one unit: the sum of all its g, and the variance of l.
    centre : str
        The prediction without l, [outputs].
    """

    program: Program
    gradients: Mapping[int, tuple[str, ...]]
    totals: tuple[str, ...]
    spreads: tuple[str, ...]
    centre: str

    @property
    def values(self) -> int:
        """The units of all that the program computes, of a row."""
        return sum(self.program.widths[step.out] for step in self.program.steps)


def linearise(program: Program, affine: Affine) -> Linearisation | None:
    """Approximate what leads to the last dropout, which a prediction is `affine` in.

    None where that is not stochastic, where there are many outputs, or an operation that has no slope or
    mixes units.
    """
    if len(affine.weight) > MOST_OUTPUTS:
        return None
    writer = _Writer(program)
    steps = leading_to(program.steps, (affine.x,))
    if not all(writer.forward(step) for step in steps) or affine.x not in writer.variances:
        return None
    rows = [writer.backward(steps, affine.x, weight.astype(np.float32)) for weight in affine.weight]
    totals, spreads = [], []
    for gradients in rows:
        squares = {site: writer.unitwise("Mul", g, g) for site, g in gradients.items()}
        totals.append(writer.summed(gradients, dict.fromkeys(gradients, 1.0)))
        odds = {site: program.sites[site].rate / (1.0 - program.sites[site].rate) for site in gradients}
        spreads.append(writer.summed(squares, odds))
    centre = writer.linear(writer.means[affine.x], affine.weight, affine.offset)
    sites = sorted(rows[0])
    outputs = (*(g for gradients in rows for g in gradients.values()), *totals, *spreads, centre)
    wanted = tuple(leading_to(writer.steps, outputs))
    return Linearisation(
        Program(wanted, writer.widths, program.boundary, (), outputs),
        {site: tuple(gradients[site] for gradients in rows) for site in sites},
        tuple(totals),
        tuple(spreads),
        centre,
    )


class _Writer:
    """Writes the steps of a linearisation.

    Attributes
    ----------
    means : dict of str
        By the names of the program's values.
    variances : dict of (str, float)
        Likewise, each with a factor that it is to be multiplied by; what is not stochastic has none.
    positive : set of str
        Those whose variances are never 0: what linear layers give.
    slopes : dict of str
        By the name of a unitwise operation's result: its slope.
    """

    def __init__(self, program: Program) -> None:
        self._program = program
        self.steps: list[Step] = []
        self.widths = dict(program.widths)
        self.means = {name: name for name in program.boundary}
        self.variances: dict[str, tuple[str, float]] = {}
        self.positive: set[str] = set()
        self.slopes: dict[str, str] = {}

    def unitwise(self, op: str, *args: _Operand, **attributes: float) -> str:
        """Add a unitwise operation, and return the name of its result."""
        name = self._name()
        self.widths[name] = max(self.widths[arg] if isinstance(arg, str) else len(arg) for arg in args)
        self.steps.append(Elementwise(name, op, args, attributes))
        return name

    def linear(self, x: str, weight: np.ndarray, bias: np.ndarray | None = None) -> str:
        """Add a linear layer."""
        name = self._name()
        self.widths[name] = len(weight)
        offset = None if bias is None else bias.astype(np.float32)
        self.steps.append(Linear(name, x, weight.astype(np.float32), offset))
        return name

    def summed(self, values: Mapping[int, str], factors: Mapping[int, float]) -> str:
        """The sum of all units of all values, each value times its factor."""
        parts = [
            self.linear(name, np.full((1, self.widths[name]), factors[site])) for site, name in values.items()
        ]
        return parts[0] if len(parts) == 1 else self.unitwise("Sum", *parts)

    def forward(self, step: Step) -> bool:
        """Add the moments of a step's result; whether that is possible."""
        stochastic = [name for name in arguments(step) if name in self.variances]
        match step:
            case Drop():
                self._drop(step)
            case Linear():
                self.means[step.out] = self.linear(self.means[step.x], step.weight, step.bias)
                if stochastic:
                    variance, factor = self.variances[step.x]
                    squares = np.square(step.weight, dtype=np.float64) * (factor * SPREAD**2)
                    more = self.linear(variance, squares, np.full(len(squares), _TINY))
                    self.variances[step.out] = more, SPREAD**-2
                    self.positive.add(step.out)
            case Elementwise() if not all(self._as_wide(name, step) for name in stochastic):
                return False  # one mask would count for all units
            case Elementwise() if not stochastic:
                self.means[step.out] = self._again(step, self.means)
            case Elementwise() if step.op in _SUMS:
                self.means[step.out] = self._again(step, self.means)
                parts = [self._scaled(*self.variances[name]) for name in stochastic]
                self.variances[step.out] = parts[0] if len(parts) == 1 else self.unitwise("Sum", *parts), 1.0
            case Elementwise() if len(stochastic) == 1 and _has_slopes(step, stochastic[0]):
                self._slope(step, stochastic[0])
            case _:
                return False
        return True

    def backward(self, steps: Sequence[Step], last: str, weight: Array) -> dict[int, str]:
        """The gradient of an output by the masks, by site, given that by the units of the `last` value."""
        by: dict[str, _Operand] = {last: weight}
        gradients: dict[int, str] = {}
        for step in reversed(steps):
            if step.out not in by:
                continue
            gradient = by.pop(step.out)
            match step:
                case Drop():
                    gradients[step.site] = self.unitwise("Mul", self.means[step.x], gradient)
                    self._lead(by, step.x, gradient)
                case Linear() if step.x in self.variances:
                    turned = step.weight.T
                    before = self.linear(gradient, turned) if isinstance(gradient, str) else turned @ gradient
                    self._lead(by, step.x, before)
                case Elementwise():
                    for place, arg in enumerate(step.args):
                        if not (isinstance(arg, str) and arg in self.variances):
                            continue
                        before = gradient
                        if step.out in self.slopes:
                            before = self.unitwise("Mul", self.slopes[step.out], gradient)
                        elif step.op == "Sub" and place == 1:
                            before = (
                                -gradient if not isinstance(gradient, str) else self.unitwise("Neg", gradient)
                            )
                        self._lead(by, arg, before)
        return gradients

    def _as_wide(self, name: str, step: Step) -> bool:
        return self._program.widths[name] == self._program.widths[step.out]

    def _lead(self, by: dict[str, _Operand], name: str, gradient: _Operand) -> None:
        """Add what one way from a value contributes to the gradient by it."""
        if name in self.variances:
            by[name] = self.unitwise("Add", by[name], gradient) if name in by else gradient

    def _drop(self, step: Drop) -> None:
        rate = self._program.sites[step.site].rate
        mean = self.means[step.x]
        self.means[step.out] = mean
        made = self.unitwise("Mul", mean, mean)
        if step.x in self.variances:
            variance, factor = self.variances[step.x]
            made = self.unitwise("Add", made, self._scaled(variance, factor / rate))
        self.variances[step.out] = made, rate / (1.0 - rate)

    def _slope(self, step: Elementwise, name: str) -> None:
        mean, (variance, factor) = self.means[name], self.variances[name]
        squared = variance  # of a linear layer, that of `SPREAD` standard deviations
        if name not in self.positive:
            squared = self.unitwise("Add", self._scaled(variance, factor * SPREAD**2), _constant(_TINY))
        away = self.unitwise("Sqrt", squared)
        above, below = (
            self._again(step, {**self.means, name: self.unitwise(op, mean, away)}) for op in ("Add", "Sub")
        )
        rise = self._scaled(self.unitwise("Sub", above, below), 0.5)
        slope = self.unitwise("Div", rise, away)
        self.slopes[step.out] = slope
        self.means[step.out] = self._scaled(self.unitwise("Add", above, below), 0.5)
        self.variances[step.out] = self.unitwise("Mul", self.unitwise("Mul", slope, slope), variance), factor

    def _scaled(self, name: str, factor: float) -> str:
        return self.unitwise("Mul", name, _constant(factor))

    def _again(self, step: Elementwise, names: Mapping[str, str]) -> str:
        """The operation on other values."""
        args = [names[arg] if isinstance(arg, str) else arg for arg in step.args]
        return self.unitwise(step.op, *args, **step.attributes)

    def _name(self) -> str:
        return f"linearisation {len(self.steps)}"


def _has_slopes(step: Elementwise, name: str) -> bool:
    """Whether the operation can be evaluated at any value of an argument."""
    return step.op in _SMOOTH or (step.op == "Div" and step.args[0] == name)


def _constant(value: float) -> Array:
    return np.array([value], np.float32)
