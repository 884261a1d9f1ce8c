"""The masks of small requests: as `inference.masks` stratifies them, drawn by `inference.subsets`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dropserve_models.inference.masks import Strata, count_passes
from dropserve_models.inference.program import Site
from dropserve_models.inference.small.steps import mask_name
from dropserve_models.inference.subsets import kept
from dropserve_models.prediction import FloatArray


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

    def forget(self) -> None:
        """See `bank.MaskSet`: there is nothing that could be made again."""


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
    """The masks of a site, [passes, units]; the passes of a stratum of `count` alike are `count` apart."""
    scale = np.float32(1.0 / (1.0 - site.rate))
    parts = [scale * kept(random, site, size, count).reshape(-1, site.units) for size, count in groups]
    return parts[0] if len(parts) == 1 else np.concatenate(parts)
