"""What can be saved when a program runs: units no pass needs to compute, and dropout no pass needs to sample.

Thinning. With its masks fixed, a pass is a smaller dense network. A linear layer that follows a Dropout can
leave out its dropped inputs; one whose results reach the next Dropout through unit-wise operations alone
need not compute the units dropped there.

Integration. What follows the last Dropout, the tail, is cheap next to what comes before. If the tail is
affine in the dropped units (regression), its mean and variance over the last masks are closed-form:
with y = A (m * h) + c and m_i = 0 or 1/(1-p), mean A h + c and variance sum_i p/(1-p) A_i^2 h_i^2.
Otherwise (a softmax) every pass runs the tail for several draws of the last masks. Either way the estimate
of a pass is that of its conditional distribution given the other masks (Rao-Blackwellisation).
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from dropserve_models.inference.affine import Affine, find_affine
from dropserve_models.inference.linearisation import Linearisation, linearise
from dropserve_models.inference.orthogonal import group_count
from dropserve_models.inference.program import Drop, Elementwise, Linear, Program, Step, arguments
from dropserve_models.prediction import MonteCarloOptions

MAX_DRAWS = 8
"""Draws of the last masks in a pass, at most."""
TAIL_SHARE = 0.5
"""What these draws may cost, as a share of the multiplications before the tail."""
DRAWS_IN_ALL = 200
"""Draws of the last masks in a request of few passes, about."""
MANY_PASSES = 100
"""With so many, each has a single draw. What this drops need not be computed: a quarter of the time."""
ORTHOGONAL_DRAWS = 8
"""As many draws of a pass share their products, where the layer after them has `ORTHOGONAL_WEIGHTS`: with
fewer of either, the small products that take their place cost as much."""
ORTHOGONAL_WEIGHTS = 2000
ADAPTIVE_PASSES = 20
"""Passes that an adaptive request computes before it looks again at which rows need more."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What was found.

    Attributes
    ----------
    fused : dict of Drop
        By the name of a linear layer: the Dropout whose output it alone reads.
    packed : dict of int
        By the name of a value: the site whose kept units are all that is needed of it.
    tail : int
        The site of the last Dropout.
    affine : Affine or None
        The closed form of the prediction over the tail's masks, where there is one.
    draws : int
        Draws of the tail's masks in a pass, at most, where they are sampled.
    body : bool
        Whether anything before the tail is stochastic.
    tail_rate : float
        The drop rate of the last Dropout.
    tail_units : int
        That it masks.
    tail_weights : int
        Of the linear layers that read the last Dropout alone.
    closed : bool
        Whether `affine` is all there is to compute, so that no mask of the tail is ever drawn.
    linearisation : Linearisation or None
        What of the body's variance is known beforehand, where there is a closed form.
    """

    fused: dict[str, Drop]
    packed: dict[str, int]
    tail: int
    affine: Affine | None
    draws: int
    body: bool
    tail_rate: float
    tail_units: int
    tail_weights: int
    closed: bool
    linearisation: Linearisation | None

    def integrates(self, options: MonteCarloOptions) -> bool:
        """Whether the last dropout is integrated: in closed form, or by several draws a pass."""
        return options.integrate and (self.affine is not None or self._draws_a_pass(options) > 1)

    def draws_a_pass(self, options: MonteCarloOptions) -> int:
        """How many masks of the tail every pass draws."""
        return self._draws_a_pass(options) if options.integrate else 1

    def orthogonal_draws(self, options: MonteCarloOptions) -> bool:
        """Whether the draws of a pass had better share their products, where thinning; see `orthogonal`."""
        draws = self.draws_a_pass(options)
        enough = draws == ORTHOGONAL_DRAWS and self.tail_weights >= ORTHOGONAL_WEIGHTS
        return enough and self.tail_rate == 0.5 and group_count(self.tail_units, draws) > 0

    def _draws_a_pass(self, options: MonteCarloOptions) -> int:
        passes = min(options.passes, ADAPTIVE_PASSES) if options.adaptive else options.passes
        most = min(self.draws, DRAWS_IN_ALL // passes) if passes < MANY_PASSES else 1
        return _even(most, self.tail_rate)

    def sorting_site(self, integrate: bool) -> int:
        """The site whose dropped units should be about as many in passes that are thinned together."""
        packed = {site for site in self.packed.values() if not (integrate and site == self.tail)}
        return max(packed, default=0)


@lru_cache(maxsize=256)  # asked many times a request
def _even(most: int, rate: float) -> int:
    """How many draws, `most` or up to half as few.

    Where a unit is dropped in just so many draws of each pass, its own effect leaves no error at all.
    """
    even = [n for n in range(most, most // 2, -1) if (n * rate).is_integer()]
    return even[0] if even else most


def make_plan(program: Program) -> Plan:
    """Analyse a program; its first output is the prediction."""
    readers: dict[str, list[Step]] = defaultdict(list)
    for step in program.steps:
        for name in arguments(step):
            readers[name].append(step)
    drops = [step for step in program.steps if isinstance(step, Drop)]
    fused = {}
    for drop in drops:
        following = readers[drop.out]
        if len(following) == 1 and isinstance(following[0], Linear) and drop.out not in program.outputs:
            fused[following[0].out] = drop
    packed: dict[str, int] = {}
    for drop in fused.values():
        packed |= dict.fromkeys(_region(program, readers, drop), drop.site)
    last = drops[-1]
    downstream = _downstream(program, last.out)
    tail_cost = _multiplications(program, downstream)
    total = sum(_multiplications(program, {step.out}) for step in program.steps)
    draws = int(np.clip(TAIL_SHARE * (total - tail_cost) // max(tail_cost, 1), 1, MAX_DRAWS))
    stochastic = {name for drop in drops[:-1] for name in _downstream(program, drop.out)}
    affine = find_affine(program, last)
    body = bool(stochastic & {last.x, *downstream})
    return Plan(
        fused,
        packed,
        last.site,
        affine,
        draws,
        body=body,
        tail_rate=program.sites[last.site].rate,
        tail_units=program.sites[last.site].units,
        tail_weights=_multiplications(program, {name for name, drop in fused.items() if drop is last}),
        closed=affine is not None and len(program.outputs) == 1,
        linearisation=linearise(program, affine) if affine is not None and body else None,
    )


def _region(program: Program, readers: dict[str, list[Step]], drop: Drop) -> set[str]:
    """The values between linear layers and `drop` of which only the kept units are needed; maybe none."""
    producers = {step.out: step for step in program.steps}
    region: set[str] = set()
    pending = [drop.x]
    while pending:
        name = pending.pop()
        if name in region:
            continue
        producer = producers.get(name)
        if not isinstance(producer, Elementwise | Linear) or name in program.outputs:
            return set()
        if program.widths[name] != program.widths[drop.x]:
            return set()
        region.add(name)
        if isinstance(producer, Elementwise):
            pending += arguments(producer)
    for name in region:
        if any(step is not drop and step.out not in region for step in readers[name]):
            return set()
    return region


def _downstream(program: Program, name: str) -> set[str]:
    """The values that depend on `name`, itself included."""
    reached = {name}
    for step in program.steps:
        if reached.intersection(arguments(step)):
            reached.add(step.out)
    return reached


def _multiplications(program: Program, names: set[str]) -> int:
    return sum(step.weight.size for step in program.steps if isinstance(step, Linear) and step.out in names)
