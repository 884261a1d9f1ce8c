"""Activations, and their derivatives: what torch's autograd calls, without its bookkeeping."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from dropserve_models.training.config import Activation

LEAKY_SLOPE = 0.01

_aten = torch.ops.aten


@dataclass(frozen=True, slots=True)
class Function:
    """An activation.

    Attributes
    ----------
    forward : callable
        Values of its inputs.
    backward : callable
        (gradient with respect to its values, its inputs, its values) -> gradient with respect to its inputs.
    gain : float
        Variance of the initial weights before it, times their number of inputs: He et al. 2015 for those
        that zero about half their inputs, Glorot & Bengio 2010 for tanh.
    """

    forward: Callable[[Tensor], Tensor]
    backward: Callable[[Tensor, Tensor, Tensor], Tensor]
    gain: float


ACTIVATIONS: dict[Activation, Function] = {
    "relu": Function(torch.relu, lambda g, x, y: _aten.threshold_backward(g, y, 0.0), 2.0),
    "leaky_relu": Function(
        lambda x: functional.leaky_relu(x, LEAKY_SLOPE),
        lambda g, x, y: _aten.leaky_relu_backward(g, y, LEAKY_SLOPE, True),
        2.0 / (1.0 + LEAKY_SLOPE**2),
    ),
    "tanh": Function(torch.tanh, lambda g, x, y: _aten.tanh_backward(g, y), 1.0),
    "gelu": Function(functional.gelu, lambda g, x, y: _aten.gelu_backward(g, x), 2.0),
    "silu": Function(functional.silu, lambda g, x, y: _aten.silu_backward(g, x), 2.0),
}
