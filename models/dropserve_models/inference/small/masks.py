"""Masks for requests without a seed: as `inference.masks` stratifies them, drawn in a quicker way.

A seed promises masks that are a function of it; others may come from anywhere. Which of a stratum's passes
drop a unit is one of few subsets: drawn by its number, and looked up, it costs one random number a stratum
and unit instead of one a pass and unit, and no sorting.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import combinations
from math import comb, floor

import numpy as np
from numpy.typing import NDArray

from dropserve_models.inference.masks import Strata, count_passes
from dropserve_models.inference.program import Site
from dropserve_models.inference.small.steps import mask_name
from dropserve_models.prediction import FloatArray

MOST_SUBSETS = 1024
"""Larger tables leave the processor's nearest cache; then keys are sorted."""


@dataclass(frozen=True, slots=True)
class MaskSet:
    """The masks of a request's passes, by the name of the input that takes them: 0, or 1/(1-p).

    [1, passes, units]; those of the tail are [1, passes, draws a pass, units].
    """

    arrays: Mapping[str, FloatArray]

    @property
    def nbytes(self) -> int:
        """What this takes in memory."""
        return sum(array.nbytes for array in self.arrays.values())


def draw_set(sites: Sequence[Site], seed: int, groups: Strata, tail: int, draws: int) -> MaskSet:
    """Masks of all passes of a request.

    Parameters
    ----------
    groups : Strata
        What the passes fall into. Those of a stratum are not neighbours: see `stratum_of_passes`.
    tail, draws : int
        The site that is drawn so many times a pass, which are a stratum then; 0 times: it is left out.
    """
    random = np.random.Generator(np.random.SFC64(seed))
    arrays = {}
    for number, site in enumerate(sites):
        if number != tail:
            arrays[mask_name(number)] = _site(random, site, groups)[None]
        elif draws:
            strata = ((draws, count_passes(groups)),) if draws > 1 else groups
            masks = _site(random, site, strata).reshape(draws, -1, site.units)
            arrays[mask_name(number)] = np.ascontiguousarray(masks.swapaxes(0, 1))[None]
    return MaskSet(arrays)


def stratum_of_passes(groups: Strata) -> NDArray[np.intp]:
    """The stratum of each pass of `draw_set`, [passes]: first all strata's first ones."""
    first, parts = 0, []
    for size, count in groups:
        parts.append(np.tile(np.arange(first, first + count), size))
        first += count
    return np.concatenate(parts)


def _site(random: np.random.Generator, site: Site, groups: Strata) -> FloatArray:
    """The masks of a site, [passes, units]."""
    parts = [_group(random, site, size, count) for size, count in groups]
    return parts[0] if len(parts) == 1 else np.concatenate(parts)


def _group(random: np.random.Generator, site: Site, size: int, count: int) -> FloatArray:
    """The masks of strata of one size, [size * count, units]; those of a stratum are `count` passes apart."""
    scale = np.float32(1.0 / (1.0 - site.rate))
    shape = (count, site.units)
    if size == 1:
        return scale * (random.random(shape, np.float32) >= np.float32(site.rate))
    least = floor(site.rate * size)
    share = site.rate * size - least
    if comb(size, least) + comb(size, least + 1) > MOST_SUBSETS:
        return scale * _sorted(random, size, shape, least, share).reshape(-1, site.units)
    table, fewer = _subsets(size, least)
    chosen = random.integers(fewer, size=shape, dtype=np.uint16)
    if share > 0.0:
        more = random.integers(fewer, len(table[0]), size=shape, dtype=np.uint16)
        chosen = np.where(random.random(shape) < share, more, chosen)
    return (scale * table).take(chosen, axis=1).reshape(-1, site.units)


@lru_cache(maxsize=64)
def _subsets(size: int, least: int) -> tuple[FloatArray, int]:
    """All ways to drop `least`, then all ways to drop one more, of `size` passes; how many the former are.

    1 where a pass keeps the unit, and 0 where it drops it: [size, ways].
    """
    ways = [list(chosen) for drops in (least, least + 1) for chosen in combinations(range(size), drops)]
    table = np.ones((size, len(ways)), np.float32)
    for number, chosen in enumerate(ways):
        table[chosen, number] = 0.0
    return table, comb(size, least)


def _sorted(
    random: np.random.Generator, size: int, shape: tuple[int, int], least: int, share: float
) -> NDArray[np.bool_]:
    """Which passes keep a unit, [size, *shape]: not those whose keys are the smallest."""
    ranks = random.random((size, *shape), np.float32).argsort(axis=0).argsort(axis=0)
    drops: NDArray[np.intp] = least + (random.random(shape) < share)
    return ranks >= drops
