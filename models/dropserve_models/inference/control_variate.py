"""What is known of a pass beforehand, taken off it: fewer passes then tell as much.

Of the linearisation l of a pass x (see `linearisation`), the mean is 0 and the variance s is known. With
r = x - l and a constant c near the mean of x,

    E[x] = E[r]        Var[x] = Var[r] + 2 E[l (r - c)] + s

because E[l] = 0. So r is accumulated in place of x, and 2 l (r - c) + s is added to its square, as the
variance over the last masks is. This holds for every pass by itself, however good the approximation is and
however the masks of the passes depend on each other: estimates stay unbiased, and standard errors are those
of what is accumulated. What the variance no longer has to be estimated of is l^2, all pairs of units, which
stratified masks leave to chance. (Control variates: Owen, "Monte Carlo theory, methods and examples", 2013,
section 8.9.)
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TypeAlias

from torch import Tensor

from dropserve_models.inference.linearisation import Linearisation
from dropserve_models.inference.program import arguments

Weighted: TypeAlias = Callable[[int, Tensor], Tensor]
"""For a site and values [units, rows]: their sum over the units times their masks, [passes, rows]."""


class ControlVariate:
    """Computes linearisations, and takes them off passes.

    Parameters
    ----------
    operations : sequence of callable
        For each step of the linearisation's program, the function of the values that it names.
    """

    def __init__(self, linearisation: Linearisation, operations: Sequence[Callable[..., Tensor]]) -> None:
        self._found = linearisation
        steps = linearisation.program.steps
        last = {name: number for number, step in enumerate(steps) for name in arguments(step)}
        kept = {*linearisation.program.boundary, *linearisation.program.outputs}
        # What is freed at once is lent again for the next value.
        self._steps = [
            (step, operation, [name for name in {*arguments(step)} - kept if last[name] == number])
            for number, (step, operation) in enumerate(zip(steps, operations, strict=True))
        ]

    def values(self, boundary: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """What `correct` needs to know of some rows, by name, [units, 1, rows]."""
        values = dict(boundary)
        for step, operation, dead in self._steps:
            values[step.out] = operation(*(values[name] for name in arguments(step)))
            for name in dead:
                del values[name]
        return {name: values[name] for name in self._found.program.outputs}

    def correct(self, mean: Tensor, within: Tensor, values: Mapping[str, Tensor], weighted: Weighted) -> None:
        """Turn passes and the variances that they are integrated over into r and what belongs to its square.

        Parameters
        ----------
        mean, within : Tensor [outputs, passes, rows]
            Overwritten.
        values : mapping of Tensor
            Those of the same rows.
        """
        found = self._found
        centre = values[found.centre]
        for output, (total, spread) in enumerate(zip(found.totals, found.spreads, strict=True)):
            linear = -values[total][0]
            for site, gradients in found.gradients.items():
                linear = linear + weighted(site, values[gradients[output]][:, 0])
            residual = mean[output].sub_(linear)
            linear.mul_(2.0).mul_(residual - centre[output]).add_(values[spread][0])
            within[output] += linear
