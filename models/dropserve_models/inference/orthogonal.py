"""Draws of a pass's last masks that share their products.

At p = 1/2 a mask is 1 + s, with s = -1 or 1 equally likely. The D draws of a pass, a power of two, are made
of Sylvester's Hadamard matrix H, whose columns are orthogonal and whose first one is all ones: the units are
dealt into D - 1 groups, each with another of the remaining columns, and

    s of draw d and unit i = r_i H[d, group of i],    r_i = -1 or 1 at random.

So each draw is a mask like any other, and a unit is dropped in half of the draws, as in a stratum. (An
orthogonal array of strength 2: Owen, "Orthogonal arrays for computer experiments, integration and
visualization", 1992.) What a linear layer A makes of activations h is then

    A (h + s h) of draw d = sum over g of H[d, g] T_g,    T_0 = A h,    T_g = sum over i in g of A_i r_i h_i

and that takes the multiplications of two products, not of D.
"""

from __future__ import annotations

from functools import lru_cache
from itertools import pairwise

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dropserve_models.inference.scratch import Empty


def dropped(negative: NDArray[np.bool_], draws: int) -> NDArray[np.bool_]:
    """Which units the draws drop, [passes * draws, units], given where r is negative, [passes, units]."""
    passes, units = negative.shape
    sizes = [stop - start for start, stop in _groups(units, draws)]
    pattern = np.repeat(_hadamard(draws)[:, 1:] < 0, sizes, axis=1)
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
    passes, units = negative.shape
    batch = batch.expand(passes, -1, -1)
    signed = weight * (0.5 - torch.from_numpy(negative.astype(np.float32)))[:, None, :]
    parts = empty(draws, passes, len(weight), batch.shape[2])
    torch.bmm((0.5 * weight).expand(passes, -1, -1), batch, out=parts[0])
    if bias is not None:
        parts[0] += bias
    for part, (start, stop) in zip(parts[1:], _groups(units, draws), strict=True):
        torch.bmm(signed[:, :, start:stop], batch[:, start:stop], out=part)
    columns = torch.from_numpy(_hadamard(draws)).expand(passes, -1, -1)
    of_passes = parts.view(draws, passes, -1).transpose(0, 1)
    mixed = torch.bmm(columns, of_passes, out=empty(*of_passes.shape))
    return mixed.view(passes * draws, len(weight), -1)


@lru_cache
def _hadamard(order: int) -> NDArray[np.float32]:
    """Sylvester's matrix of 1 and -1, [order, order]; `order` is a power of two."""
    matrix = np.ones((1, 1), np.float32)
    while len(matrix) < order:
        matrix = np.kron(np.array([[1, 1], [1, -1]], np.float32), matrix)
    return matrix


@lru_cache
def _groups(units: int, draws: int) -> list[tuple[int, int]]:
    """Consecutive units, first and last plus 1, in `draws` - 1 groups of nearly equal size."""
    return list(pairwise(round(units * group / (draws - 1)) for group in range(draws)))
