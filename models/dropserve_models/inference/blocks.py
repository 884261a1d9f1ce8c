"""Blocks of passes: which strata are computed together, and their masks in the forms the runner needs."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dropserve_models.inference.masks import Strata, count_passes, dropped
from dropserve_models.inference.program import Site
from dropserve_models.inference.subnetworks import Units, chosen_units
from dropserve_models.prediction import FloatArray

PASS_BLOCK = 100
"""Passes computed together, at most."""
GROUP = 12
"""Passes of a block that are thinned together."""


@dataclass(frozen=True, slots=True)
class Block:
    """Consecutive strata: the number of the first, its first pass, and all of them."""

    stratum: int
    first: int
    groups: Strata


def blocks(groups: Strata, limit: int = PASS_BLOCK) -> Iterator[Block]:
    """Split strata into blocks of at most `limit` passes."""
    stratum = first = 0
    for size, count in groups:
        while count:
            part = min(count, max(1, limit // size))
            yield Block(stratum, first, ((size, part),))
            stratum, first, count = stratum + part, first + size * part, count - part


class BlockMasks:
    """The masks of one block of passes, for every site.

    Parameters
    ----------
    marks : sequence of ndarray of bool, [passes, units]
        The units dropped, a site each; that of the tail may have several draws a pass.
    draws : int
        Draws of the tail's masks in a pass.
    """

    def __init__(
        self, sites: Sequence[Site], marks: Sequence[NDArray[np.bool_]], passes: int, draws: int
    ) -> None:
        self.passes = passes
        self.draws = draws
        self._sites = sites
        self._marks = marks
        # Each form is made once, and used for every block of rows.
        self._once: dict[str, Tensor] = {}
        self._chosen: dict[tuple[str, int], Units] = {}
        self._grouped: dict[int, tuple[NDArray[np.intp], list[BlockMasks]]] = {}

    def once(self, name: str, make: Callable[[], Tensor]) -> Tensor:
        """What `make` returns, made the first time `name` is asked for: the weights a layer is left with."""
        if name not in self._once:
            self._once[name] = make()
        return self._once[name]

    @property
    def nbytes(self) -> int:
        """What this takes in memory."""
        units = sum(chosen.index.nbytes + chosen.valid.nbytes for chosen in list(self._chosen.values()))
        groups = sum(group.nbytes for _, parts in list(self._grouped.values()) for group in parts)
        tensors = sum(tensor.nbytes for tensor in list(self._once.values()))
        return units + groups + tensors + sum(marks.nbytes for marks in self._marks)

    def scaled(self, site: int) -> Tensor:
        """0, or 1/(1-p), as a value: [units, passes, 1]."""
        return self.once(f"scaled {site}", lambda: self._scaled(site))

    def binary(self, site: int) -> Tensor:
        """0 or 1, [passes, units]."""
        return self.once(f"binary {site}", lambda: torch.from_numpy((~self._marks[site]).astype(np.float32)))

    def kept(self, site: int) -> Units:
        """The kept units of each pass."""
        return self._units("kept", site)

    def lost(self, site: int) -> Units:
        """The dropped units of each pass."""
        return self._units("lost", site)

    def groups(self, site: int) -> tuple[NDArray[np.intp] | None, list[BlockMasks]]:
        """The passes sorted by how many units of a site they drop, in groups; and what undoes the sorting.

        A group is padded to its widest pass, so passes of equal width go together; and a group's values
        stay in the processor's cache from one step to the next.
        """
        if self.passes < 2 * GROUP:
            return None, [self]
        if site not in self._grouped:
            order = np.argsort(self._marks[site].sum(axis=1), kind="stable")
            parts = np.array_split(order, self.passes // GROUP)
            self._grouped[site] = (order.argsort(), [self._subset(part) for part in parts])
        return self._grouped[site]

    def _units(self, which: str, site: int) -> Units:
        if (which, site) not in self._chosen:
            marks = self._marks[site]
            self._chosen[which, site] = chosen_units(marks if which == "lost" else ~marks)
        return self._chosen[which, site]

    def _subset(self, passes: NDArray[np.intp]) -> BlockMasks:
        every_draw = (passes[:, None] * self.draws + np.arange(self.draws)).reshape(-1)
        marks = [marks[passes if len(marks) == self.passes else every_draw] for marks in self._marks]
        return BlockMasks(self._sites, marks, len(passes), self.draws)

    def _scaled(self, site: int) -> Tensor:
        scale = np.float32(1.0 / (1.0 - self._sites[site].rate))
        return torch.from_numpy(np.where(self._marks[site].T, np.float32(0.0), scale)).unsqueeze(2)


class JoinedMasks(BlockMasks):
    """The masks of several requests, each for its own rows; not to be thinned.

    Parameters
    ----------
    parts : sequence of BlockMasks
        A request each, with equally many passes and draws.
    rows : sequence of int
        The rows of each request.
    """

    def __init__(self, parts: Sequence[BlockMasks], rows: Sequence[int]) -> None:
        super().__init__((), (), parts[0].passes, parts[0].draws)
        self._parts = parts
        self._rows = rows

    def scaled(self, site: int) -> Tensor:
        """0, or 1/(1-p), as a value: [units, passes, rows]."""
        masks = zip(self._parts, self._rows, strict=True)
        return torch.cat([part.scaled(site).expand(-1, -1, rows) for part, rows in masks], 2)


class GivenMasks(BlockMasks):
    """Masks from outside, whatever their values: [passes, units] a site."""

    def __init__(self, masks: Sequence[FloatArray]) -> None:
        super().__init__((), (), max(len(mask) for mask in masks), 1)
        self._given = masks

    def scaled(self, site: int) -> Tensor:
        """The mask as a value: [units, passes, 1]."""
        return torch.from_numpy(np.ascontiguousarray(self._given[site].T))[:, :, None]


def draw_masks(sites: Sequence[Site], seed: int, block: Block, tail: int, draws: int) -> BlockMasks:
    """The masks of a block; the tail's strata hold `draws` times as many passes."""
    marks = []
    for number, site in enumerate(sites):
        times = draws if number == tail else 1
        groups = tuple((size * times, count) for size, count in block.groups)
        marks.append(dropped(seed, number, site.units, site.rate, groups, block.stratum, block.first * times))
    return BlockMasks(sites, marks, count_passes(block.groups), draws)
