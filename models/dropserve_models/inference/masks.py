"""Which units each pass drops.

Random numbers come from Philox4x64-10 (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3",
SC 2011), a counter-based generator: the number for (seed, site, pass, unit) is a function of these four
and of nothing else, so masks do not depend on how passes are grouped or which rows are computed.
"""

from __future__ import annotations

import secrets
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from dropserve_models.prediction import Masks

Strata: TypeAlias = tuple[tuple[int, int], ...]
"""Sizes of consecutive strata, in passes, each with how many there are: ((10, 9), (5, 1)) is 95 passes."""

STRATUM = 10
"""Passes in a stratum. Rates that are multiples of 1/10 are met exactly; more, smaller strata give the
standard error more degrees of freedom, fewer, larger ones leave less of the units' interactions."""

DRAWS_PER_COUNT = 8
"""A Philox4x64 counter value yields four 64-bit words: eight draws of 32 bits."""
JITTER = 1 << 32
"""Sets the jitter stream of a site apart from its keys."""


def fresh_seed() -> int:
    """A seed for a request that names none, from the operating system's entropy."""
    return secrets.randbits(64)


def strata(passes: int, masks: Masks) -> Strata:
    """The independent groups that `passes` fall into.

    Independent masks, or fewer than 4 passes: groups of one. Stratified ones: groups of `STRATUM`, the last
    one larger where `passes` is not a multiple (a smaller one's mean would vary more than the others', and
    the standard error come out too large); fewer than 2 `STRATUM` passes make two groups, as a standard
    error needs.
    """
    if masks == "independent" or passes < 4:
        return ((1, passes),)
    if passes < 2 * STRATUM:
        half = passes // 2
        return ((half, 2),) if 2 * half == passes else ((half + 1, 1), (half, 1))
    full, rest = divmod(passes, STRATUM)
    return ((STRATUM, full - 1), (STRATUM + rest, 1)) if rest else ((STRATUM, full),)


def count_passes(groups: Strata) -> int:
    """The passes in all strata."""
    return sum(size * count for size, count in groups)


def dropped(
    seed: int, site: int, units: int, rate: float, groups: Strata, first_stratum: int = 0, first_pass: int = 0
) -> NDArray[np.bool_]:
    """Which units the passes of some consecutive strata drop, [passes, units].

    Within a stratum of B passes a unit is dropped in floor(p B) or one more of them, so that p B is the
    expectation, at passes chosen at random: Latin hypercube sampling (McKay, Beckman & Conover, 1979) of a
    Bernoulli variable. A stratum of one pass is an independent draw.

    Parameters
    ----------
    groups : Strata
        The strata asked for.
    first_stratum, first_pass : int
        The numbers, counted from the request's first, of the first stratum and pass asked for.
    """
    passes = count_passes(groups)
    keys = _draws(seed, site, first_pass, passes, units)
    if groups[0][0] == 1:
        return keys < np.uint32(min(round(rate * 2**32), 2**32 - 1))
    strata_count = sum(count for _, count in groups)
    jitter = _draws(seed, site | JITTER, first_stratum, strata_count, units) * 2.0**-32
    result = np.empty((passes, units), np.bool_)
    start = stratum = 0
    for size, count in groups:
        stop = start + size * count
        block = keys[start:stop].reshape(count, size, units)
        drops = np.floor(rate * size + jitter[stratum : stratum + count]).astype(np.intp)[:, None]
        last = np.take_along_axis(np.sort(block, axis=1), np.maximum(drops, 1) - 1, axis=1)
        marked = (block <= last) & (drops > 0)
        result[start:stop] = marked.reshape(stop - start, units)
        start, stratum = stop, stratum + count
    return result


def _draws(seed: int, stream: int, first: int, count: int, units: int) -> NDArray[np.uint32]:
    """32 random bits for each of `units` units at each of `count` consecutive places of a stream."""
    counts = -(-units // DRAWS_PER_COUNT)
    generator = np.random.Philox(key=seed | (stream << 64), counter=first * counts)
    words = generator.random_raw(count * counts * (DRAWS_PER_COUNT // 2))
    return words.view(np.uint32).reshape(count, counts * DRAWS_PER_COUNT)[:, :units]
