"""Which units each pass drops, drawn on the device: the very masks of `inference.masks`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from dropserve_models.inference.device.philox import Philox, halves
from dropserve_models.inference.masks import DRAWS_PER_COUNT, JITTER, Strata, count_passes
from dropserve_models.inference.program import Site


@dataclass(frozen=True, slots=True)
class _Site:
    """What is drawn for a site: strata, and where its random numbers are among the blocks of Philox."""

    units: int
    rate: float
    strata: Strata
    keys: slice
    jitter: slice


class MaskSampler:
    """Draws the masks of blocks of passes that fall into the same strata.

    Parameters
    ----------
    sites : sequence of Site
    groups : Strata
        The strata of a block.
    tail, draws : int
        The site that is drawn several times a pass, and how often.
    """

    def __init__(
        self, sites: Sequence[Site], groups: Strata, tail: int, draws: int, device: torch.device
    ) -> None:
        self._philox = Philox(device)
        self._sites: list[_Site] = []
        blocks: list[np.ndarray] = []  # a row each: first counter, its steps a stratum and a pass, stream
        start = 0

        def place(stream: int, places: int, units: int, a_stratum: int, a_pass: int) -> slice:
            nonlocal start
            counts = -(-units // DRAWS_PER_COUNT)
            first = 1 + np.arange(places * counts)  # numpy counts up before it draws
            steps = np.array([[a_stratum * counts, a_pass * counts, stream]]).repeat(len(first), 0)
            blocks.append(np.column_stack([first, steps]))
            start += len(first)
            return slice(start - len(first), start)

        for number, site in enumerate(sites):
            times = draws if number == tail else 1
            # Several draws of a pass are a stratum, numbered as the pass is.
            strata = groups if times == 1 else ((times, count_passes(groups)),)
            keys = place(number, count_passes(strata), site.units, 0, times)
            jitters = 0 if strata[0][0] == 1 else sum(count for _, count in strata)
            jitter = place(number | JITTER, jitters, site.units, *((1, 0) if times == 1 else (0, 1)))
            self._sites.append(_Site(site.units, site.rate, strata, keys, jitter))
        table = torch.from_numpy(np.concatenate(blocks)).to(device)
        self._first, self._a_stratum, self._a_pass, self._stream = table.T.contiguous()

    def __call__(self, start: Tensor) -> list[Tensor]:
        """The masks of each site, as values: 0 or 1/(1-p), [units, passes, seeds].

        Parameters
        ----------
        start : Tensor of int64 [3, seeds]
            The seed, and the numbers of the block's first stratum and first pass, for each set of masks.
        """
        seeds = start.shape[1]
        seed, stratum, first = (row[:, None] for row in start)
        counter = self._first + self._a_stratum * stratum + self._a_pass * first
        stream = self._stream.expand(seeds, -1)
        words = self._philox(counter.reshape(-1), seed.expand_as(counter).reshape(-1), stream.reshape(-1))
        bits = halves(words).view(seeds, -1, DRAWS_PER_COUNT)
        return [self._scaled(site, bits) for site in self._sites]

    def _scaled(self, site: _Site, bits: Tensor) -> Tensor:
        keys = self._by_place(site, bits[:, site.keys])
        if site.strata[0][0] == 1:
            kept = keys >= min(round(site.rate * 2**32), 2**32 - 1)
        else:
            kept = self._stratified(site, keys, self._by_place(site, bits[:, site.jitter]))
        scale = float(np.float32(1.0 / (1.0 - site.rate)))
        return kept.permute(2, 1, 0).to(torch.float32, memory_format=torch.contiguous_format).mul_(scale)

    @staticmethod
    def _stratified(site: _Site, keys: Tensor, jitter: Tensor) -> Tensor:
        """Of each stratum, floor(p B) passes or one more are dropped: those with the lowest keys."""
        kept = []
        first = stratum = 0
        for size, count in site.strata:
            block = keys[:, first : first + size * count].reshape(len(keys), count, size, -1)
            share = jitter[:, stratum : stratum + count].double() * 2.0**-32 + site.rate * size
            drops = share.floor().long()[:, :, None]
            last = block.sort(2).values.gather(2, drops.clamp_min(1) - 1)
            kept.append(((block > last) | (drops == 0)).flatten(1, 2))
            first, stratum = first + size * count, stratum + count
        return torch.cat(kept, 1)

    @staticmethod
    def _by_place(site: _Site, bits: Tensor) -> Tensor:
        """Blocks [seeds, places * counts, 8] as [seeds, places, units]."""
        counts = -(-site.units // DRAWS_PER_COUNT)
        return bits.reshape(len(bits), -1, counts * DRAWS_PER_COUNT)[:, :, : site.units]
