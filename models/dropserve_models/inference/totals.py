"""Sums of the few numbers that outlive a block, in numpy, and what is made of them.

Like those of `pointwise`, they give a row the same bits wherever it lies.
"""

from __future__ import annotations

from typing import TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray

Wide: TypeAlias = NDArray[np.float64]

_TINY = float(np.finfo(np.float32).tiny)


def entropy_of(probabilities: Wide) -> Wide:
    """Of probabilities [outputs, rows], in nats; 0 log 0 is 0, and what rounding leaves above 1 is 1."""
    clamped = np.minimum(np.maximum(probabilities, _TINY), 1.0)
    terms: Wide = torch.log(torch.from_numpy(clamped)).numpy()  # numpy's own depends on the place
    terms *= clamped
    return -added_(terms, 0)


def added_(x: Wide, axis: int) -> Wide:
    """The sum over an axis as `pointwise.total_` forms it, for few numbers; `x` is lost."""
    terms: Wide = np.moveaxis(x, axis, 0)
    size = len(terms)
    while size > 1:
        half = size // 2
        terms[:half] += terms[size - half : size]
        size -= half
    total: Wide = terms[0]
    return total
