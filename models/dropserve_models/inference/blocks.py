"""Blocks of passes: which strata are computed together, and their masks in the forms the runner needs."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dropserve_models.inference import orthogonal
from dropserve_models.inference.masks import Strata, count_passes, dropped
from dropserve_models.inference.operators import padded
from dropserve_models.inference.program import Site
from dropserve_models.inference.subnetworks import Units, chosen_units
from dropserve_models.inference.subsets import kept
from dropserve_models.prediction import FloatArray

Places: TypeAlias = slice | NDArray[np.intp]

PASS_BLOCK = 100
"""Passes computed together, at most."""


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
    marks : sequence of ndarray of bool [passes, units], or None
        The units dropped, a site each; that of the tail may have several draws a pass. None: as `negative`
        tells, which is all that their product asks for.
    strata : Strata
        What these passes fall into.
    draws : int
        Draws of the tail's masks in a pass.
    places : slice or ndarray of int
        The passes' places among those of the request.
    negative : ndarray of bool [passes, units], optional
        Where the tail's draws are orthogonal, the signs they are made of; see `orthogonal`.
    """

    def __init__(
        self,
        sites: Sequence[Site],
        marks: Sequence[NDArray[np.bool_] | None],
        strata: Strata,
        draws: int,
        places: Places,
        negative: NDArray[np.bool_] | None = None,
    ) -> None:
        self.passes = count_passes(strata)
        self.strata = strata
        self.draws = draws
        self.places = places
        self.negative = negative
        self._sites = sites
        self._marks = marks
        # Each form is made once, and used for every block of rows.
        self._once: dict[str, Tensor] = {}
        self._chosen: dict[tuple[str, int], Units] = {}
        self._grouped: dict[tuple[int, int], list[BlockMasks]] = {}

    def once(self, name: str, make: Callable[[], Tensor]) -> Tensor:
        """What `make` returns, made the first time `name` is asked for: the weights a layer is left with."""
        made = self._once.get(name)
        if made is None:
            made = self._once[name] = make()
        return made

    def forget(self) -> None:
        """Let go of what can be made again, also while others use it."""
        self._once.clear()
        self._chosen.clear()
        self._grouped.clear()

    @property
    def nbytes(self) -> int:
        """What this takes in memory."""
        units = sum(chosen.index.nbytes + chosen.padded.nbytes for chosen in list(self._chosen.values()))
        groups = sum(group.nbytes for parts in list(self._grouped.values()) for group in parts)
        tensors = sum(tensor.nbytes for tensor in list(self._once.values()))
        marks = sum(marks.nbytes for marks in (*self._marks, self.negative) if marks is not None)
        return units + groups + tensors + marks

    def scaled(self, site: int) -> Tensor:
        """0, or 1/(1-p), as a value: [units, passes, 1]."""
        return self.once(f"scaled {site}", lambda: self._scaled(site))

    def binary(self, site: int) -> Tensor:
        """0 or 1, [passes, units]."""
        return self.once(f"binary {site}", lambda: self._binary(site))

    def weighted(self, site: int, values: Tensor) -> Tensor:
        """Values [units, rows] summed over the units, each times its mask: [passes, rows]."""
        scale = 1.0 / (1.0 - self._sites[site].rate)
        masks = self.once(f"padded {site}", lambda: padded(self._binary(site)))
        return torch.mm(masks, values)[: self.passes].mul_(scale)

    def kept(self, site: int) -> Units:
        """The kept units of each pass."""
        return self._units("kept", site)

    def lost(self, site: int) -> Units:
        """The dropped units of each pass."""
        return self._units("lost", site)

    def groups(self, site: int, least: int) -> list[BlockMasks]:
        """The passes in groups of whole strata: a group's values stay in the cache from step to step.

        Of at least so many passes, and less than twice as many, where there are strata enough.

        A group is padded to its widest pass. So strata of one pass are first sorted by how many units of
        `site` they drop.
        """
        (size, count), *rest = self.strata
        if rest or self.passes < 2 * least:
            return [self]  # and not kept: what refers to itself stays until the garbage is collected
        grouped = self._grouped.get((site, least))
        if grouped is None:
            order = np.arange(self.passes)
            if size == 1:
                order = np.argsort(self._dropped(site).sum(axis=1), kind="stable")
            split = np.array_split(order.reshape(count, size), max(1, self.passes // least))
            grouped = [self._subset(part.reshape(-1), ((size, len(part)),)) for part in split if len(part)]
            self._grouped[site, least] = grouped
        return grouped

    def _dropped(self, site: int) -> NDArray[np.bool_]:
        """The units that the passes drop, [passes, units], or [passes * draws, units] of the tail."""
        marks = self._marks[site]
        if marks is None:
            assert self.negative is not None
            return orthogonal.dropped(self.negative, self.draws)
        return marks

    def _units(self, which: str, site: int) -> Units:
        chosen = self._chosen.get((which, site))
        if chosen is None:
            marks = self._dropped(site)
            chosen = self._chosen[which, site] = chosen_units(marks if which == "lost" else ~marks)
        return chosen

    def _subset(self, passes: NDArray[np.intp], strata: Strata) -> BlockMasks:
        every_draw = (passes[:, None] * self.draws + np.arange(self.draws)).reshape(-1)
        marks = [
            None if marks is None else marks[passes if len(marks) == self.passes else every_draw]
            for marks in self._marks
        ]
        first = self.places.start if isinstance(self.places, slice) else 0
        negative = None if self.negative is None else self.negative[passes]
        return BlockMasks(self._sites, marks, strata, self.draws, first + passes, negative)

    def _binary(self, site: int) -> Tensor:
        return torch.from_numpy((~self._dropped(site)).astype(np.float32))

    def _scaled(self, site: int) -> Tensor:
        scale = np.float32(1.0 / (1.0 - self._sites[site].rate))
        return torch.from_numpy(np.where(self._dropped(site).T, np.float32(0.0), scale)).unsqueeze(2)


class RequestMasks(tuple[BlockMasks, ...]):
    """All blocks of a request."""

    __slots__ = ()

    @property
    def nbytes(self) -> int:
        """What they take in memory."""
        return sum(masks.nbytes for masks in self)

    def forget(self) -> None:
        """Let go of what can be made again."""
        for masks in self:
            masks.forget()


class GivenMasks(BlockMasks):
    """Masks from outside, whatever their values: [passes, units] a site."""

    def __init__(self, masks: Sequence[FloatArray]) -> None:
        passes = max(len(mask) for mask in masks)
        super().__init__((), (), ((1, passes),), 1, slice(0, passes))
        self._given = masks

    def scaled(self, site: int) -> Tensor:
        """The mask as a value: [units, passes, 1]."""
        return torch.from_numpy(np.ascontiguousarray(self._given[site].T))[:, :, None]


def draw_masks(
    sites: Sequence[Site], seed: int, parts: Iterable[Block], tail: int, draws: int
) -> Iterator[BlockMasks]:
    """The masks of blocks. Several draws of the tail's are a stratum of each pass."""
    for block in parts:
        passes = count_passes(block.groups)
        marks = [
            dropped(seed, number, site.units, site.rate, ((draws, passes),), block.first, block.first * draws)
            if number == tail and draws > 1
            else dropped(seed, number, site.units, site.rate, block.groups, block.stratum, block.first)
            for number, site in enumerate(sites)
        ]
        yield BlockMasks(sites, marks, block.groups, draws, slice(block.first, block.first + passes))


def quick_masks(
    sites: Sequence[Site],
    seed: int,
    parts: Iterable[Block],
    tail: int,
    draws: int,
    *,
    orthogonal_draws: bool = False,
) -> Iterator[BlockMasks]:
    """The same, where nobody has named the seed: other masks, of the same distribution.

    `orthogonal_draws`: make the draws of the tail's so that they share products; see `orthogonal`.
    """
    random = np.random.Generator(np.random.SFC64(seed))
    for block in parts:
        passes = count_passes(block.groups)
        marks: list[NDArray[np.bool_] | None] = []
        negative = None
        for number, site in enumerate(sites):
            if number == tail and orthogonal_draws:
                negative = random.random((passes, site.units), np.float32) < 0.5
                marks.append(None)
                continue
            groups = ((draws, passes),) if number == tail and draws > 1 else block.groups
            strata = [kept(random, site, size, count).swapaxes(0, 1) for size, count in groups]
            marks.append(~np.concatenate([masks.reshape(-1, site.units) for masks in strata]))
        places = slice(block.first, block.first + passes)
        yield BlockMasks(sites, marks, block.groups, draws, places, negative)
