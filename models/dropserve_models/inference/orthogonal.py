"""Draws of a pass's last masks that share their products.

At p = 1/2 a mask is 1 + s, with s = -1 or 1 equally likely. The D draws of a pass, a power of two, are made
of Sylvester's Hadamard matrix H, whose columns are orthogonal and whose first one is all ones: the units are
dealt into groups of equal size, at least D - 1 of them, with one of the remaining columns each, in turn, and

    s of draw d and unit i = r_i H[d, column of i],    r_i = -1 or 1 at random.

So each draw is a mask like any other, and a unit is dropped in half of the draws, as in a stratum. (An
orthogonal array of strength 2: Owen, "Orthogonal arrays for computer experiments, integration and
visualization", 1992.) What a linear layer A makes of activations h is then

    A (h + s h) of draw d = A h + sum over g of H[d, column of g] T_g,    T_g = sum over i in g of A_i r_i h_i

and that takes the multiplications of two products, not of D.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dropserve_models.inference.scratch import Empty


@lru_cache
def group_count(units: int, draws: int) -> int:
    """Groups of equal size, from one a column to two a column; 0 where there is no such number."""
    columns = draws - 1
    return next((count for count in range(columns, 2 * columns + 1) if units % count == 0), 0)


def dropped(negative: NDArray[np.bool_], draws: int) -> NDArray[np.bool_]:
    """Which units the draws drop, [passes * draws, units], given where r is negative, [passes, units]."""
    passes, units = negative.shape
    columns = _columns(units, draws)
    pattern = np.repeat(columns.numpy() < 0, units // columns.shape[1], axis=1)
    return (negative[:, None, :] ^ pattern).reshape(passes * draws, units)


def product(
    weight: Tensor,
    negative: NDArray[np.bool_],
    batch: Tensor,
    draws: int,
    bias: Tensor | None,
    empty: Empty = torch.empty,
) -> Tensor:
    """What a layer gives for every draw, [passes * draws, outputs, rows].

    Parameters
    ----------
    weight : Tensor [outputs, units]
        2 A, because the factor of inverted dropout is in it.
    negative : ndarray of bool [passes, units]
    batch : Tensor [passes or 1, units, rows]
    bias : Tensor [1, outputs, 1] or None
    empty : Empty
        Makes what large results are written to.
    """
    (passes, units), outputs, rows = negative.shape, len(weight), batch.shape[2]
    columns = _columns(units, draws)
    groups = columns.shape[1]
    batch = batch.expand(passes, -1, -1)
    signs = torch.from_numpy(np.subtract(0.5, negative, dtype=np.float32)).view(passes, groups, 1, -1)
    grouped = weight.view(outputs, groups, -1).transpose(0, 1)
    signed = torch.mul(grouped, signs, out=empty(passes, *grouped.shape))
    common = torch.bmm((0.5 * weight).expand(passes, -1, -1), batch)
    if bias is not None:
        common += bias
    parts = empty(passes * groups, outputs, rows)
    torch.bmm(signed.view(len(parts), outputs, -1), batch.reshape(len(parts), -1, rows), out=parts)
    mixed = torch.baddbmm(
        common.view(passes, 1, -1),
        columns.expand(passes, -1, -1),
        parts.view(passes, groups, -1),
        out=empty(passes, draws, outputs * rows),
    )
    return mixed.view(passes * draws, outputs, rows)


@lru_cache
def _columns(units: int, draws: int) -> Tensor:
    """The column of each group, [draws, groups]: those of Sylvester's matrix but the first, in turn."""
    matrix = np.ones((1, 1), np.float32)
    while len(matrix) < draws:
        matrix = np.kron(np.array([[1, 1], [1, -1]], np.float32), matrix)
    return torch.from_numpy(matrix[:, 1 + np.arange(group_count(units, draws)) % (draws - 1)])
