"""Which rows each member of a fleet learns from at each step."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dropserve_models.training.randomness import set_state, state_of

Index = NDArray[np.intp]


@dataclass(frozen=True, slots=True)
class Batch:
    """Rows of one step.

    Attributes
    ----------
    rows : Tensor [members * width]
        Row numbers.
    weights : Tensor [members, width] or None
        1, or 0 for a row that only fills a place; None where every place holds a row.
    """

    rows: Tensor
    weights: Tensor | None


def padded(rows: Sequence[Index]) -> tuple[Index, NDArray[np.float32] | None]:
    """Row numbers [members, longest], filled up with each member's first, and the weights of the places."""
    width = max(len(member) for member in rows)
    index = np.stack([np.pad(member, (0, width - len(member)), constant_values=member[0]) for member in rows])
    counts = np.array([len(member) for member in rows])
    if counts.min() == width:
        return index, None
    return index, (np.arange(width) < counts[:, None]).astype(np.float32)


class Batches:
    """An endless stream of epochs, each a permutation of every member's rows.

    All members take the same number of steps in an epoch, as many as the longest needs, and share out their
    rows evenly: no epoch ends with a noisy step on a handful of rows.

    Parameters
    ----------
    rows : sequence of ndarray
        The row numbers of each member.
    batch_size : int
        The most rows a step.
    seeds : sequence of SeedSequence
        One for each member.
    """

    def __init__(
        self,
        rows: Sequence[Index],
        batch_size: int,
        seeds: Sequence[np.random.SeedSequence],
        device: torch.device | str = "cpu",
    ) -> None:
        counts = np.array([len(member) for member in rows])
        self.steps = math.ceil(counts.max() / batch_size)
        # Held fixed, so that members that leave do not change what the others do.
        self._widths = [int(sizes.max()) for sizes in np.diff(_borders(counts, self.steps)).T]
        self._device = torch.device(device)
        self._rows = list(rows)
        self._sources = [np.random.Generator(np.random.SFC64(seed)) for seed in seeds]
        self._set_places()

    def _set_places(self) -> None:
        counts = np.array([len(rows) for rows in self._rows])
        borders = _borders(counts, self.steps)
        self._longest = int(counts.max())
        first = self._longest * np.arange(len(counts))[:, None]
        self._places: list[Index] = []  # in all members' permutations, one after the other, [members * width]
        self._weights: list[Tensor | None] = []
        for step, width in enumerate(self._widths):
            columns = np.arange(width)
            filled = columns < (borders[:, step + 1] - borders[:, step])[:, None]
            self._places.append((first + np.where(filled, borders[:, step, None] + columns, 0)).ravel())
            weights = torch.from_numpy(filled.astype(np.float32)).to(self._device)
            self._weights.append(None if filled.all() else weights)

    def epoch(self) -> Iterator[Batch]:
        """The steps of the next epoch."""
        shuffled = np.zeros((len(self._rows), self._longest), np.intp)
        for member, (rows, source) in enumerate(zip(self._rows, self._sources, strict=True)):
            shuffled[member, : len(rows)] = source.permutation(rows)
        for places, weights in zip(self._places, self._weights, strict=True):
            yield Batch(torch.from_numpy(shuffled.take(places)).to(self._device), weights)

    def select(self, members: Sequence[int]) -> None:
        """Go on with some of the members only, in the same steps."""
        self._rows = [self._rows[member] for member in members]
        self._sources = [self._sources[member] for member in members]
        self._set_places()

    def state(self) -> NDArray[np.uint64]:
        """Where the streams are, [members, ...]."""
        return np.stack([state_of(source.bit_generator) for source in self._sources])

    def restore(self, state: NDArray[np.uint64]) -> None:
        """Go on from where `state` was taken."""
        for source, row in zip(self._sources, state, strict=True):
            set_state(source.bit_generator, row)


def _borders(counts: NDArray[np.intp], steps: int) -> NDArray[np.intp]:
    """Where each step's rows begin and the last ones end, [members, steps + 1]; evenly, larger ones first."""
    whole, rest = np.divmod(counts[:, None], steps)
    step = np.arange(steps + 1)
    return whole * step + np.minimum(step, rest)
