"""Layers that read the prefix: their result without dropout, less what the dropped units of each pass give.

Where a stratum drops every unit in the same number of its passes, what its dropped units give adds up to
that many times the result without dropout. Then nobody needs to compute that on its own.
"""

from __future__ import annotations

import torch
from torch import Tensor

from dropserve_models.inference.scratch import Empty


def drops_each(rate: float, size: int) -> int:
    """In how many of its `size` passes a stratum drops each unit; 0 where not each in as many."""
    drops = rate * size
    return int(drops) if drops.is_integer() else 0


def subtract(full: Tensor, lost: Tensor) -> Tensor:
    """A layer's results, [passes, outputs, rows], in the place of `lost`.

    Parameters
    ----------
    full : Tensor [passes or 1, outputs, rows]
        Without dropout.
    lost : Tensor [passes, outputs, rows]
        What the units that a pass drops give, the bias left out.
    """
    return torch.sub(full, lost, out=lost)


def without_dropout(
    lost: Tensor, size: int, drops: int, bias: Tensor | None, *, seeded: bool, empty: Empty = torch.empty
) -> Tensor:
    """The result without dropout, [1, outputs, rows], from what a stratum loses.

    Parameters
    ----------
    lost : Tensor [passes, outputs, rows]
        What the dropped units of each pass give; the first `size` passes, at least 2, are a stratum.
    drops : int
        How many of these passes drop each unit.
    bias : Tensor [1, outputs, 1] or None
    seeded : bool
        Whether a row's bits must be the same wherever it lies.
    empty : Empty
        Makes what large results are written to.
    """
    full = empty(*lost.shape[1:])
    if seeded:  # `sum` picks its order by the shape
        torch.add(lost[0], lost[1], out=full)
        for number in range(2, size):
            full += lost[number]
    else:
        torch.sum(lost[:size], 0, out=full)
    if drops > 1:
        full /= drops
    if bias is not None:
        full += bias[0]
    return full.unsqueeze(0)
