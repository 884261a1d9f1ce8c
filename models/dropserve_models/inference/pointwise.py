"""Functions that give a row the same bits wherever it lies.

torch's own sigmoid, softmax, gelu and the like compute the end of a block that does not fill a vector
register by other code than the rest, and split a tensor between threads wherever it falls; both show in the
last bits. exp, expm1, log, log1p, tanh and erf do not, and arithmetic is exact: so all is made of those.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from dropserve_models.inference.scratch import Empty, alike

_LOG2_E = math.log2(math.e)


def sigmoid(x: Tensor) -> Tensor:
    """1 / (1 + exp(-x))."""
    return torch.exp(-x).add_(1.0).reciprocal_()


def softplus(x: Tensor) -> Tensor:
    """log(1 + exp(x)), without overflow."""
    return torch.relu(x) + torch.exp(-torch.abs(x)).log1p_()


def gelu(x: Tensor) -> Tensor:
    """The product of x and the normal distribution function at x."""
    return torch.erf(x * math.sqrt(0.5)).add_(1.0).mul_(x).mul_(0.5)


def gelu_tanh(x: Tensor) -> Tensor:
    """The approximation of `gelu` by tanh."""
    return (
        (x * x * x).mul_(0.044715).add_(x).mul_(math.sqrt(2.0 / math.pi)).tanh_().add_(1.0).mul_(x).mul_(0.5)
    )


def elu(x: Tensor, alpha: float, scale: float = 1.0) -> Tensor:
    """X where it is positive, alpha (exp(x / scale) - 1) elsewhere."""
    return (x.clamp_max(0.0) / scale).expm1_().mul_(alpha).add_(torch.relu(x))


def power(x: Tensor, y: Tensor) -> Tensor:
    """X to the power of y, rounded from float64: its last bits differ by place, and are rounded off."""
    return torch.pow(x.double(), y.double()).float()


def softmax(x: Tensor) -> Tensor:
    """Over the first dimension."""
    exponentials = (x - x.amax(0)).exp_()
    return exponentials.div_(total(exponentials))


def softmax_with_entropy(
    x: Tensor, *, seeded: bool = True, lost: bool = False, empty: Empty = torch.empty
) -> tuple[Tensor, Tensor]:
    """The same of x [units, passes, rows], and the entropies in nats, [1, passes, rows].

    They are log sum exp x - sum p x, which takes no logarithm of each p.

    Parameters
    ----------
    seeded : bool
        Whether a row's bits must be the same wherever it lies. Otherwise torch may add up as is quickest,
        and take powers of 2, which are half the work.
    lost : bool
        Whether `x` may be overwritten.
    empty : Empty
        Makes what large results are written to.
    """
    shifted = torch.sub(x, x.amax(0), out=x if lost else alike(x, empty))
    exponentials = alike(x, empty)
    if seeded:
        torch.exp(shifted, out=exponentials)
    else:
        torch.mul(shifted, _LOG2_E, out=exponentials).exp2_()
    norm = total(exponentials) if seeded else exponentials.sum(0)
    probabilities = exponentials.div_(norm)
    products = shifted.mul_(probabilities)
    mean = total_(products) if seeded else products.sum(0)
    # What is minus infinity lies 1e31 and more below: p is 0 there, and 0 or a tie's everywhere else.
    return probabilities, norm.log_().sub_(mean.nan_to_num_(0.0)).unsqueeze(0)


def log_softmax(x: Tensor) -> Tensor:
    """Over the first dimension."""
    shifted = x - x.amax(0)
    return shifted.sub_(total(torch.exp(shifted)).log_())


def total(x: Tensor) -> Tensor:
    """The sum over the first dimension, by adding halves; `sum` picks its order by the tensor's shape.

    A tensor of its own.
    """
    size = x.shape[0]
    if size == 1:
        return x[0].clone()
    half = size // 2
    left = x[: size - half].clone()
    left[:half].add_(x[size - half :])
    return total_(left)


def total_(x: Tensor, axis: int = 0) -> Tensor:
    """The sum over a dimension, likewise, in place: `x` is lost."""
    size = x.shape[axis]
    while size > 1:
        half = size // 2
        x.narrow(axis, 0, half).add_(x.narrow(axis, size - half, half))
        size -= half
    return x.select(axis, 0)
