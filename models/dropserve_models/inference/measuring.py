"""Measuring what a model's ways of computing cost, before it answers its first Monte Carlo request.

Two ways are compared: the graph of small requests, and thinned sub-networks. Each is timed at four points, of
few rows and more, few passes and many, which tell the four numbers of a `Way`. Then less of the processor's
cache is tried. Of several runs the shortest counts, since other work on the machine only ever makes one
longer; and nothing is chosen in the place of the constants that is not clearly better.
"""

from __future__ import annotations

import logging
from bisect import bisect_left
from collections.abc import Callable, Hashable, Sequence
from dataclasses import replace
from math import inf
from time import perf_counter
from typing import TypeVar

import numpy as np

from dropserve_models.errors import MemoryLimitError
from dropserve_models.inference.bank import MaskBank
from dropserve_models.inference.costs import (
    ALWAYS_THINNED,
    AROUND,
    CLEARLY,
    CONSTANTS,
    NEVER_THINNED,
    Costs,
    Way,
)
from dropserve_models.inference.device.choice import AnyEngine
from dropserve_models.inference.engine import BANK_BYTES, Engine
from dropserve_models.inference.plan import MANY_PASSES
from dropserve_models.inference.workspace import GROUP
from dropserve_models.prediction import FloatArray, MonteCarloOptions

log = logging.getLogger(__name__)

FEW, MANY = MonteCarloOptions(10), MonteCarloOptions(MANY_PASSES)
"""With the most draws of the last masks in a pass, and with a single one."""
FEWER_ROWS = 4
"""Ways are timed where the constants put their border, and with so many times fewer rows."""
MOST_ROWS, MOST_WEIGHTS = 1024, 150_000
"""A border of more rows is left to the constants, as is a model of more weights: that would take long."""
RUNS = 3
"""Of each of what is compared, at most."""
LIMIT_SECONDS = 0.3
"""Some 0.15 s are enough, unless the processor has other work; then the constants tell more than a clock."""
SIZES = tuple(CONSTANTS.cache_bytes // part for part in (1, 2, 4))
"""What is tried."""
SIZED = MonteCarloOptions(40)
"""Two groups of passes, of as many rows as the usual size lets be computed together."""

Choice = TypeVar("Choice", bound=Hashable)


def measured(engine: AnyEngine, probe: FloatArray) -> AnyEngine:
    """An engine that computes by what computing takes here; where there is nothing to choose, as it was."""
    if isinstance(engine, Engine):
        engine.costs = measure(engine, probe)
    return engine


def measure(engine: Engine, probe: FloatArray, clock: Callable[[], float] = perf_counter) -> Costs:
    """What computing takes; the constants where nothing is to be chosen, or that takes too long to find out.

    Parameters
    ----------
    engine : Engine
        Nobody else may use it meanwhile.
    probe : ndarray [rows, features]
        Features that any model of this kind can answer.
    clock : callable
        Tells seconds.
    """
    small, border = engine.small, engine.work.border(MANY)
    if small is None or border > MOST_ROWS or engine.work.weights > MOST_WEIGHTS:
        return CONSTANTS
    found, runs, begun = CONSTANTS, 0, clock()

    def time(costs: Costs, options: MonteCarloOptions, rows: int) -> float:
        nonlocal runs
        runs += 1
        engine.costs = costs
        features = np.resize(probe, (rows, probe.shape[1]))
        start = clock()
        with np.errstate(over="ignore", invalid="ignore"):
            engine.run(features, options)
        end = clock()
        if end - begun > LIMIT_SECONDS:
            raise TimeoutError(f"the processor has other work, {runs} runs took {end - begun:.1f} s")
        return end - start

    bank, small.bank = small.bank, MaskBank(BANK_BYTES, slots=1)  # whose masks, like most, have been drawn
    try:
        rows = max(1, round(border / FEWER_ROWS)), max(2, round(border))
        ways = [_way(engine, rows, seconds) for seconds in _points(time, rows)]
        found = replace(CONSTANTS, small=ways[0], thinned=ways[1])
        filled = engine.workspace.most_rows(SIZED, CONSTANTS, GROUP)
        best = clearly_best(
            SIZES, lambda size: time(replace(ALWAYS_THINNED, cache_bytes=size), SIZED, filled)
        )
        found = replace(found, cache_bytes=best)
    except (MemoryLimitError, TimeoutError) as error:
        log.debug("not all could be measured: %s", error)
    finally:
        engine.costs, small.bank = CONSTANTS, bank
    log.debug(
        "measured in %.0f ms, %d runs: thinned from %d rows on for %d passes and from %d for %d (by the "
        "constants, %.0f and %.0f), %d MiB of values at a time",
        1e3 * (clock() - begun),
        runs,
        *(number for asked in (FEW, MANY) for number in (_border(engine, asked, found), asked.passes)),
        *(engine.work.border(asked) for asked in (FEW, MANY)),
        found.cache_bytes / 2**20,
    )
    return found


def clearly_best(choices: Sequence[Choice], time: Callable[[Choice], float]) -> Choice:
    """The first choice, unless another one takes clearly less time in as many runs, each of its shortest.

    The first run of all is not counted, and what is not clearly better so far is not run again.
    """
    usual, *others = choices
    time(usual)
    shortest = dict.fromkeys(choices, inf)
    for _ in range(RUNS):
        for choice in (usual, *others):
            shortest[choice] = min(shortest[choice], time(choice))
        others = [choice for choice in others if shortest[choice] < CLEARLY * shortest[usual]]
        if not others:
            return usual
    return min(others, key=shortest.__getitem__)


def _points(
    time: Callable[[Costs, MonteCarloOptions, int], float], rows: tuple[int, int]
) -> list[dict[tuple[MonteCarloOptions, int], float]]:
    """The shortest times of both ways, at every point."""
    points = [(options, count) for options in (FEW, MANY) for count in rows]
    # What is run again and again finds its threads awake, as where there is much to do.
    return [
        {point: min(time(costs, *point) for _ in range(RUNS)) for point in points}
        for costs in (NEVER_THINNED, ALWAYS_THINNED)
    ]


def _way(engine: Engine, rows: tuple[int, int], seconds: dict[tuple[MonteCarloOptions, int], float]) -> Way:
    """The numbers that four points tell; none is less than nothing."""
    fewer, more = rows
    slopes, calls = [], []  # by rows and passes; at no rows
    for options in (FEW, MANY):
        slope = max(0.0, (seconds[options, more] - seconds[options, fewer]) / (more - fewer))
        slopes.append(slope / options.passes)
        calls.append(max(0.0, seconds[options, fewer] - slope * fewer))
    draws = [engine.work.draws(options) for options in (FEW, MANY)]
    a_draw = max(0.0, (slopes[0] - slopes[1]) / (draws[0] - draws[1])) if draws[0] > draws[1] else 0.0
    a_row = max(0.0, slopes[1] - draws[1] * a_draw)
    a_pass = max(0.0, (calls[1] - calls[0]) / (MANY.passes - FEW.passes))
    return Way(max(0.0, calls[0] - FEW.passes * a_pass), a_pass, a_row, a_draw)


def _border(engine: Engine, options: MonteCarloOptions, costs: Costs) -> int:
    """The rows from which on these costs thin."""
    most = int(engine.work.border(options) * AROUND) + 2
    return bisect_left(range(most), True, key=lambda rows: engine.work.thins(rows, options, costs))
