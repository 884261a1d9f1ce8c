"""Optimisers over one parameter buffer, [members, parameters].

The update rules of torch.optim (tests hold them equal), as a handful of operations on a single tensor:
nothing per layer, and without the second that importing torch.optim's machinery takes.
"""

from __future__ import annotations

import math
from typing import Protocol

import torch
from torch import Tensor

from dropserve_models.training.config import TrainingConfig
from dropserve_models.training.network import Network

BETA_1, BETA_2, EPSILON = 0.9, 0.999, 1e-8


class Optimiser(Protocol):
    """Changes the parameters it was made for, in place."""

    def step(self, gradient: Tensor, learning_rate: float) -> None:
        """Apply one gradient, shaped as the parameters."""


def make_optimiser(config: TrainingConfig, network: Network) -> Optimiser:
    """The optimiser that `config` names, with weight decay on the weights only."""
    decay = network.is_weight().to(network.parameters.dtype) * config.weight_decay
    if config.optimizer == "sgd":
        return Sgd(network.parameters, decay, config.momentum, config.nesterov)
    return Adam(network.parameters, decay, decoupled=config.optimizer == "adamw")


class Adam:
    """Adam (Kingma & Ba 2015), or AdamW where the decay is decoupled (Loshchilov & Hutter 2019).

    Parameters
    ----------
    parameters : Tensor [members, parameters]
    decay : Tensor
        Weight decay of each parameter; broadcasts to `parameters`.
    """

    def __init__(self, parameters: Tensor, decay: Tensor, *, decoupled: bool) -> None:
        self._parameters = parameters
        self._decay = decay
        self._decays = bool(decay.any())
        self._decoupled = decoupled
        self._mean = torch.zeros_like(parameters)
        self._square = torch.zeros_like(parameters)
        self._steps = 0

    @torch.no_grad()
    def step(self, gradient: Tensor, learning_rate: float) -> None:
        """Apply one gradient, shaped as the parameters."""
        self._steps += 1
        if self._decays:
            if self._decoupled:
                self._parameters.addcmul_(self._parameters, self._decay, value=-learning_rate)
            else:
                gradient = gradient.addcmul(self._parameters, self._decay)
        self._mean.lerp_(gradient, 1.0 - BETA_1)
        self._square.mul_(BETA_2).addcmul_(gradient, gradient, value=1.0 - BETA_2)
        root = self._square.sqrt().mul_(1.0 / math.sqrt(1.0 - BETA_2**self._steps)).add_(EPSILON)
        self._parameters.addcdiv_(self._mean, root, value=-learning_rate / (1.0 - BETA_1**self._steps))


class Sgd:
    """Stochastic gradient descent with (Nesterov) momentum and an L2 penalty."""

    def __init__(self, parameters: Tensor, decay: Tensor, momentum: float, nesterov: bool) -> None:
        self._parameters = parameters
        self._decay = decay
        self._decays = bool(decay.any())
        self._momentum = momentum
        self._nesterov = nesterov
        self._velocity = torch.zeros_like(parameters)

    @torch.no_grad()
    def step(self, gradient: Tensor, learning_rate: float) -> None:
        """Apply one gradient, shaped as the parameters."""
        if self._decays:
            gradient = gradient.addcmul(self._parameters, self._decay)
        self._velocity.mul_(self._momentum).add_(gradient)
        step = gradient.add(self._velocity, alpha=self._momentum) if self._nesterov else self._velocity
        self._parameters.add_(step, alpha=-learning_rate)
