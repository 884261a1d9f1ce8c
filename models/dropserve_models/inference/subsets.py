"""Strata drawn quickly, for requests without a seed.

A seed promises masks that are a function of it; others may come from anywhere. Which of a stratum's passes
drop a unit is one of few subsets: drawn by its number, and looked up, it costs one random number a stratum
and unit instead of one a pass and unit, and no sorting.
"""

from __future__ import annotations

from functools import lru_cache
from itertools import combinations
from math import comb, floor

import numpy as np
from numpy.typing import NDArray

from dropserve_models.inference.program import Site

MOST_SUBSETS = 1024
"""Larger tables leave the processor's nearest cache; then keys are sorted."""


def kept(random: np.random.Generator, site: Site, size: int, count: int) -> NDArray[np.bool_]:
    """Which units the passes of `count` strata of one size keep, [size, count, units]."""
    shape = (count, site.units)
    if size == 1:
        return random.random((1, *shape), np.float32) >= np.float32(site.rate)
    least = floor(site.rate * size)
    share = site.rate * size - least
    if comb(size, least) + comb(size, least + 1) > MOST_SUBSETS:
        return _sorted(random, size, shape, least, share)
    table, fewer = _subsets(size, least)
    chosen = random.integers(fewer, size=shape, dtype=np.uint16)
    if share > 0.0:
        more = random.integers(fewer, len(table[0]), size=shape, dtype=np.uint16)
        chosen = np.where(random.random(shape) < share, more, chosen)
    return table.take(chosen, axis=1)


@lru_cache(maxsize=64)
def _subsets(size: int, least: int) -> tuple[NDArray[np.bool_], int]:
    """All ways to drop `least`, then all ways to drop one more, of `size` passes; how many the former are.

    Whether a pass keeps the unit, [size, ways].
    """
    ways = [list(chosen) for drops in (least, least + 1) for chosen in combinations(range(size), drops)]
    table = np.ones((size, len(ways)), np.bool_)
    for number, chosen in enumerate(ways):
        table[chosen, number] = False
    return table, comb(size, least)


def _sorted(
    random: np.random.Generator, size: int, shape: tuple[int, int], least: int, share: float
) -> NDArray[np.bool_]:
    """Which passes keep a unit, [size, *shape]: not those whose keys are the smallest."""
    ranks = random.random((size, *shape), np.float32).argsort(axis=0).argsort(axis=0)
    drops: NDArray[np.intp] = least + (random.random(shape) < share)
    return ranks >= drops
