"""Thinned sub-networks: the weights that are left of a linear layer when a pass has dropped its units."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dropserve_models.inference.program import Linear
from dropserve_models.inference.scratch import Empty

WIDTH_MULTIPLE = 8
"""Units units are padded to a multiple of this: a vector register's worth."""


@dataclass(frozen=True, slots=True, eq=False)
class Units:
    """Some units of each pass, padded to the pass that has most.

    Attributes
    ----------
    index : Tensor of int64 [passes, width]
        Padding repeats a unit of the layer, so that it holds a value like any other...
    padded : Tensor of int64 [passes, width]
        ...and is one beyond the last unit here, where weights are 0, to keep it out of the next layer's sums.
    """

    index: Tensor
    padded: Tensor


def chosen_units(chosen: NDArray[np.bool_]) -> Units:
    """The units marked in `chosen` [passes, units]."""
    units = chosen.shape[1]
    counts = np.count_nonzero(chosen, axis=1)
    width = min(units, -(-max(int(counts.max()), 1) // WIDTH_MULTIPLE) * WIDTH_MULTIPLE)
    padded = np.full((len(chosen), width), units)
    padded[np.arange(width) < counts[:, None]] = np.flatnonzero(chosen) % units  # pass by pass
    return Units(torch.from_numpy(np.minimum(padded, units - 1)), torch.from_numpy(padded))


class Layer:
    """A linear layer that follows a Dropout, or precedes one, or both."""

    def __init__(self, step: Linear, rate: float) -> None:
        """`rate` is that of the Dropout before the layer; 0 without one."""
        self.weight = torch.from_numpy(step.weight * np.float32(1.0 / (1.0 - rate)))  # [out, in]
        weight = self.weight.t()
        self._transposed = torch.cat([weight, weight.new_zeros(1, weight.shape[1])])  # see `Units.padded`
        self.bias = None if step.bias is None else torch.from_numpy(step.bias.copy())
        self._biases = None if self.bias is None else self.bias[None, :, None]

    def weights(
        self, inputs: Units | Tensor | None, outputs: Units | None, empty: Empty = torch.empty
    ) -> Tensor:
        """The part of the weights that a pass needs, [passes, outputs, inputs].

        `inputs` are the units that count, or a mask of 0 and 1 [passes, in] that leaves the others in place.
        """
        if isinstance(inputs, Units) and outputs is None:
            return take(self._transposed, inputs.padded, empty).transpose(1, 2)
        if outputs is None:
            if isinstance(inputs, Tensor):
                return torch.mul(self.weight, inputs[:, None, :], out=empty(len(inputs), *self.weight.shape))
            return self.weight[None]
        weight = take(self.weight, outputs.index, empty)
        if isinstance(inputs, Units):
            index = inputs.index[:, None, :].expand(-1, weight.shape[1], -1)
            counts = inputs.padded < self.weight.shape[1]
            return torch.gather(weight, 2, index, out=empty(*index.shape)).mul_(counts[:, None, :])
        return weight if inputs is None else weight.mul_(inputs[:, None, :])

    def biases(self, outputs: Units | None) -> Tensor | None:
        """The biases, as [passes or 1, outputs, 1]."""
        if self.bias is None or outputs is None:
            return self._biases
        return self.bias.index_select(0, outputs.index.view(-1)).view(*outputs.index.shape, 1)


def take(rows: Tensor, index: Tensor, empty: Empty) -> Tensor:
    """Rows [..., width] of a matrix [rows, width] by their numbers [...]."""
    width = rows.shape[1]
    taken = empty(*index.shape, width)
    torch.index_select(rows, 0, index.view(-1), out=taken.view(-1, width))
    return taken


def gather(batch: Tensor, kept: Units, empty: Empty) -> Tensor:
    """The kept units [passes, width, rows] of values [passes or 1, units, rows]."""
    if batch.shape[0] == 1:
        return take(batch[0], kept.index, empty)
    index = kept.index[:, :, None].expand(-1, -1, batch.shape[2])
    return torch.gather(batch, 1, index, out=empty(*index.shape))


def pick(constant: Tensor, kept: Units) -> Tensor:
    """The kept units of a constant [units, 1, 1], as [width, passes, 1]."""
    return constant.view(-1).index_select(0, kept.index.view(-1)).view(*kept.index.shape, 1).permute(1, 0, 2)
