"""Random dropout masks for training."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dropserve_models.training.randomness import set_state, state_of

_LEVELS = 2**16
_WORDS_AHEAD = 4096


class MaskStream:
    """Reproducible inverted-dropout masks: 0, or 1 / (1 - p), per unit and row, a stream for each member.

    A unit is dropped when 16 random bits are below p: rates are met to 1/131072.

    Parameters
    ----------
    rates : sequence of sequence of float
        Of each member: the drop rate on the input of each linear layer.
    widths : sequence of int
        The number of units there.
    seeds : sequence of SeedSequence
        One for each member.
    """

    def __init__(
        self,
        rates: Sequence[Sequence[float]],
        widths: Sequence[int],
        seeds: Sequence[np.random.SeedSequence],
        device: torch.device | str = "cpu",
    ) -> None:
        self._widths = tuple(widths)
        self._rates = torch.tensor(rates, dtype=torch.float64).view(len(seeds), len(self._widths))
        # A layer that no member drops from takes no random numbers, also after members have left.
        self._drops = [bool(layer.any()) for layer in self._rates.T]
        self._units = sum(width for width, drops in zip(self._widths, self._drops, strict=True) if drops)
        # SFC64's raw output, four units a draw: several times faster than torch.rand on a CPU, and the
        # same masks on every device.
        self._sources = [np.random.SFC64(seed) for seed in seeds]
        self._device = torch.device(device)
        self._set_levels()
        self._states = self._states_now()
        self._bits = torch.empty(len(seeds), 0, dtype=torch.int16)
        self._used = 0

    def _set_levels(self) -> None:
        rates = self._rates.view(len(self._sources), -1, 1)
        levels = (rates * _LEVELS).round_().clamp_(max=_LEVELS - 1) - _LEVELS // 2
        self._lowest_kept = levels.to(self._device, torch.int16).unbind(1)
        self._scales = (1.0 / (1.0 - rates)).to(self._device, torch.float32).unbind(1)

    def _states_now(self) -> NDArray[np.uint64]:
        return np.stack([state_of(source) for source in self._sources])

    def _fill(self, least: int) -> None:
        """Draw ahead, for several steps in one call to each source."""
        words = max(-(-least // 4), _WORDS_AHEAD)
        self._states = self._states_now()
        drawn = np.empty((len(self._sources), words), np.uint64)
        for member, source in enumerate(self._sources):
            drawn[member] = source.random_raw(words)
        self._bits = torch.from_numpy(drawn.view(np.int16)).to(self._device)
        self._used = 0

    def draw(self, rows: int) -> list[Tensor | None]:
        """The next masks, [members, rows, width] for each layer; None where no member drops."""
        if self._used + rows * self._units > self._bits.shape[1]:
            self._fill(rows * self._units)
        masks: list[Tensor | None] = []
        for layer, width in enumerate(self._widths):
            if not self._drops[layer]:
                masks.append(None)
                continue
            stop = self._used + rows * width
            mask = torch.empty(len(self._sources), rows * width, device=self._device)
            torch.ge(self._bits[:, self._used : stop], self._lowest_kept[layer], out=mask)
            masks.append(mask.mul_(self._scales[layer]).view(-1, rows, width))
            self._used = stop
        return masks

    def select(self, members: Sequence[int]) -> None:
        """Go on with some of the members only."""
        self._sources = [self._sources[member] for member in members]
        self._rates = self._rates[list(members)]
        self._set_levels()
        self._states = self._states[list(members)]
        self._bits = self._bits[list(members)]

    def state(self) -> NDArray[np.uint64]:
        """Where the streams are, [members, ...]."""
        drawn = [(self._bits.shape[1], self._used)] * len(self._sources)
        return np.hstack([self._states, np.array(drawn, np.uint64)])

    def restore(self, state: NDArray[np.uint64]) -> None:
        """Go on from where `state` was taken."""
        for source, row in zip(self._sources, state[:, :-2], strict=True):
            set_state(source, row)
        drawn, used = (int(value) for value in state[0, -2:])
        self._bits = self._bits[:, :0]
        if drawn:
            self._fill(drawn)
        self._used = used
