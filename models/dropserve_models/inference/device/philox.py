"""Philox4x64-10 on any device, bit for bit as numpy.random.Philox has it.

From Salmon et al., "Parallel random numbers: as easy as 1, 2, 3" (SC 2011). A block of four 64-bit words is
a function of a counter and a key, so that all blocks are computed at once. torch has no unsigned 64-bit
arithmetic: words are int64 with the same bits, whose sums and products wrap around as unsigned ones do.
"""

from __future__ import annotations

import torch
from torch import Tensor

ROUNDS = 10
_MULTIPLIERS = (0xD2E7470EE14C6C93, 0xCA5A826395121157)
_KEY_STEPS = (0x9E3779B97F4A7C15, 0xBB67AE8584CAA73B)
_LOW = 0xFFFFFFFF


class Philox:
    """The generator on one device.

    What differs between the two halves of a round stands side by side in one tensor, [2, ...]: the number
    of operations is what this costs, not their size.
    """

    def __init__(self, device: torch.device) -> None:
        def column(values: tuple[int, int]) -> Tensor:
            return torch.tensor([signed(value) for value in values], device=device)[:, None]

        self._whole = column(_MULTIPLIERS)
        self._high = column((_MULTIPLIERS[0] >> 32, _MULTIPLIERS[1] >> 32))
        self._low = column((_MULTIPLIERS[0] & _LOW, _MULTIPLIERS[1] & _LOW))
        self._key_steps = column(_KEY_STEPS)

    def __call__(self, counter: Tensor, seed: Tensor, stream: Tensor) -> Tensor:
        """The words of some blocks.

        Parameters
        ----------
        counter : Tensor of int64 [blocks]
            The lowest word of the counter; the other three are 0.
        seed, stream : Tensor of int64 [blocks]
            The two words of the key.

        Returns
        -------
        Tensor of int64 [blocks, 4]
        """
        even = torch.stack((counter, torch.zeros_like(counter)))
        odd = torch.zeros_like(even)
        key = torch.stack((seed, stream))
        for number in range(ROUNDS):
            if number:
                key = key + self._key_steps
            even, odd = self._high_words(even).flip(0) ^ odd ^ key, (even * self._whole).flip(0)
        return torch.stack((even[0], odd[0], even[1], odd[1]), -1)

    def _high_words(self, x: Tensor) -> Tensor:
        """The upper 64 bits of the products [2, blocks] with the multipliers, from halves of 32 bits."""
        low, high = x & _LOW, _upper(x)
        middle = high * self._low + _upper(low * self._low)
        return high * self._high + _upper(middle) + _upper(low * self._high + (middle & _LOW))


def signed(word: int) -> int:
    """A 64-bit word as the int64 with the same bits."""
    return word - (1 << 64) if word >> 63 else word


def halves(words: Tensor) -> Tensor:
    """The 32-bit halves of words [..., n], lower one first, as int64 [..., 2 n] from 0 to 2**32 - 1."""
    return torch.stack((words & _LOW, _upper(words)), -1).flatten(-2)


def _upper(x: Tensor) -> Tensor:
    return (x >> 32) & _LOW
