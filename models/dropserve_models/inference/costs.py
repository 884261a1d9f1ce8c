"""What the ways of computing a model cost, and which way and which sizes follow from that.

A request's time, computed in one way, is taken to be

    call + passes * (a_pass + rows * (a_row + draws * a_draw))

with the draws of the tail's masks in a pass. Constants tell from which work on thinning is best: they hold
within a factor of two for many networks and processors. What has been measured of a model (see `measuring`)
takes their place around there, where they may be wrong. Requests with a seed have the constants alone: the
last bits of their answers tell which way they were computed, and in which blocks.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import inf

from dropserve_models.inference.plan import Plan
from dropserve_models.inference.program import Linear, Program
from dropserve_models.prediction import MonteCarloOptions

CLEARLY = 0.9
"""What takes less than this share of the time that the constants' choice takes is chosen in its stead."""
AROUND = 5.0
"""Work so many times less, or more, than where the constants put the border is not asked about."""


@dataclass(frozen=True, slots=True)
class Way:
    """Seconds of a way of computing: of a call, and of what there is many times in it."""

    call: float
    a_pass: float
    a_row: float
    a_draw: float

    def seconds(self, rows: int, passes: int, draws: int) -> float:
        """What a request takes."""
        return self.call + passes * (self.a_pass + rows * (self.a_row + draws * self.a_draw))


@dataclass(frozen=True, slots=True)
class Costs:
    """What is known of a model's costs; by default, the constants.

    Attributes
    ----------
    thinned_rows : float
        With so many rows, what thinning saves of multiplications is what gathering the weights takes.
    thinned_work : float
        With so many multiplications a pass more, it also makes up for the steps that thinning takes. (Both
        measured with 4,000 to 1,000,000 weights.)
    draw_work : float
        Multiplications that take as long as masking one unit for one draw of the tail, which thinning avoids.
    cache_bytes : int
        What values that are there at once may take: more falls out of the processor's cache. The rows and
        passes that are computed together follow from it. Never more than the default, which is what requests
        are fitted into their memory with.
    small, thinned : Way or None
        As measured: in the graph of small requests, and in thinned sub-networks.
    """

    thinned_rows: float = 12
    thinned_work: float = 1_500_000
    draw_work: float = 32
    cache_bytes: int = 32 * 2**20
    small: Way | None = None
    thinned: Way | None = None


CONSTANTS = Costs()
NEVER_THINNED, ALWAYS_THINNED = Costs(thinned_work=inf), Costs(thinned_rows=0, thinned_work=0)


class Work:
    """What a program has to compute for a request.

    Attributes
    ----------
    weights : int
        Of the layers that can be thinned; 0: there are none.
    """

    def __init__(self, program: Program, plan: Plan) -> None:
        layers = {step.out: step.weight for step in program.steps if isinstance(step, Linear)}
        self.weights = sum(layers[name].size for name in plan.fused)
        tails = [name for name, drop in plan.fused.items() if drop.site == plan.tail]
        self._drawn_units = 0 if plan.closed else sum(layers[name].shape[1] for name in tails)
        self._plan = plan

    def border(self, options: MonteCarloOptions, costs: Costs = CONSTANTS) -> float:
        """The rows from which on the constants thin."""
        work = self.weights + costs.draw_work * self._drawn_units * self.draws(options)
        return costs.thinned_rows + costs.thinned_work / work if work else inf

    def draws(self, options: MonteCarloOptions) -> int:
        """The draws of a pass that thinning makes cheaper; 0: it samples the tail like all before it."""
        integrates = self._drawn_units and self._plan.integrates(options)
        return self._plan.draws_a_pass(options) if integrates else 0

    def thins(self, rows: int, options: MonteCarloOptions, costs: Costs) -> bool:
        """Whether a request is best computed in thinned sub-networks."""
        if not self.weights:
            return False
        border = self.border(options, costs)
        usual = rows >= border
        if costs.small is None or costs.thinned is None or options.adaptive:
            return usual
        if not border / AROUND < rows < border * AROUND:
            return usual
        asked = (rows, options.passes, self.draws(options))
        small, thinned = costs.small.seconds(*asked), costs.thinned.seconds(*asked)
        return not small < CLEARLY * thinned if usual else thinned < CLEARLY * small
