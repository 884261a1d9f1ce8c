"""Random dropout masks for training."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor


class MaskStream:
    """A reproducible stream of inverted-dropout masks: 0, or 1 / (1 - p), per unit and row.

    Parameters
    ----------
    rates : sequence of float
        The drop rate on the input of each linear layer.
    widths : sequence of int
        Its number of units.
    seed : SeedSequence
    """

    def __init__(self, rates: Sequence[float], widths: Sequence[int], seed: np.random.SeedSequence) -> None:
        self._layers = [(rate, width) for rate, width in zip(rates, widths, strict=True)]
        self._units = sum(width for rate, width in self._layers if rate > 0.0)
        # SFC64's raw output, two units a draw: several times faster than torch.rand on a CPU.
        self._source = np.random.SFC64(seed)

    def draw(self, members: int, rows: int) -> list[Tensor | None]:
        """The next masks, [members, rows, width] for each layer; None where the rate is 0."""
        count = members * rows * self._units
        bits = self._source.random_raw((count + 1) // 2).view(np.uint32)
        masks: list[Tensor | None] = []
        start = 0
        for rate, width in self._layers:
            if rate == 0.0:
                masks.append(None)
                continue
            stop = start + members * rows * width
            kept = bits[start:stop] >= np.uint32(rate * 2**32)
            mask = np.multiply(kept, np.float32(1.0 / (1.0 - rate)), dtype=np.float32)
            masks.append(torch.from_numpy(mask).view(members, rows, width))
            start = stop
        return masks
