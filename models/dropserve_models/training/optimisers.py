"""Optimisers over one parameter buffer, [members, parameters].

The update rules of torch.optim (tests hold them equal), as a handful of operations on a single tensor:
nothing per layer, each member with a learning rate and a weight decay of its own, and without the second
that importing torch.optim's machinery takes.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor

from dropserve_models.training.config import TrainingConfig
from dropserve_models.training.network import Network

BETA_1, BETA_2, EPSILON = 0.9, 0.999, 1e-8


class Optimiser(Protocol):
    """Changes the parameters it was made for, in place."""

    def step(self, gradient: Tensor, learning_rates: Tensor) -> None:
        """Apply one gradient, shaped as the parameters, with learning rates [members, 1]."""

    def buffers(self) -> dict[str, Tensor]:
        """What is carried from step to step, each [members, parameters], by name; to be changed in place."""


def make_optimiser(configs: Sequence[TrainingConfig], network: Network, steps: int = 0) -> Optimiser:
    """The optimiser that the configurations name, with weight decay on the weights only.

    Parameters
    ----------
    configs : sequence of TrainingConfig
        One for each member; they differ in the weight decay at most.
    steps : int
        How many were taken already, where the buffers are to be restored.
    """
    first = configs[0]
    decays = network.parameters.new_tensor([config.weight_decay for config in configs])
    decay = decays.unsqueeze(1) * network.is_weight() if bool(decays.any()) else None
    if first.optimizer == "sgd":
        return Sgd(network.parameters, decay, first.momentum, first.nesterov)
    return Adam(network.parameters, decay, decoupled=first.optimizer == "adamw", steps=steps)


class Adam:
    """Adam (Kingma & Ba 2015), or AdamW where the decay is decoupled (Loshchilov & Hutter 2019).

    Parameters
    ----------
    parameters : Tensor [members, parameters]
    decay : Tensor or None
        Weight decay of each parameter; broadcasts to `parameters`.
    steps : int
        Already taken.
    """

    def __init__(self, parameters: Tensor, decay: Tensor | None, *, decoupled: bool, steps: int = 0) -> None:
        self._parameters = parameters
        self._decay = decay
        self._decoupled = decoupled
        self._mean = torch.zeros_like(parameters)
        self._square = torch.zeros_like(parameters)
        self._scratch = torch.empty_like(parameters)
        self._steps = steps

    def step(self, gradient: Tensor, learning_rates: Tensor) -> None:
        """Apply one gradient, shaped as the parameters, with learning rates [members, 1]."""
        self._steps += 1
        if self._decay is not None and not self._decoupled:
            gradient = torch.addcmul(gradient, self._parameters, self._decay)
        self._mean.lerp_(gradient, 1.0 - BETA_1)
        self._square.mul_(BETA_2).addcmul_(gradient, gradient, value=1.0 - BETA_2)
        # The bias corrections, as factors of the whole step and of what is added to the root.
        root = math.sqrt(1.0 - BETA_2**self._steps)
        factor = root / (1.0 - BETA_1**self._steps)
        step = torch.sqrt(self._square, out=self._scratch).add_(EPSILON * root)
        torch.div(self._mean, step, out=step)
        if self._decay is not None and self._decoupled:
            step.addcmul_(self._parameters, self._decay, value=1.0 / factor)
        self._parameters.addcmul_(step, learning_rates, value=-factor)

    def buffers(self) -> dict[str, Tensor]:
        """The moving averages."""
        return {"mean": self._mean, "square": self._square}


class Sgd:
    """Stochastic gradient descent with (Nesterov) momentum and an L2 penalty."""

    def __init__(self, parameters: Tensor, decay: Tensor | None, momentum: float, nesterov: bool) -> None:
        self._parameters = parameters
        self._decay = decay
        self._momentum = momentum
        self._nesterov = nesterov
        self._velocity = torch.zeros_like(parameters)

    def step(self, gradient: Tensor, learning_rates: Tensor) -> None:
        """Apply one gradient, shaped as the parameters, with learning rates [members, 1]."""
        if self._decay is not None:
            gradient = torch.addcmul(gradient, self._parameters, self._decay)
        torch.add(gradient, self._velocity, alpha=self._momentum, out=self._velocity)
        step = gradient.add(self._velocity, alpha=self._momentum) if self._nesterov else self._velocity
        self._parameters.addcmul_(step, learning_rates, value=-1.0)

    def buffers(self) -> dict[str, Tensor]:
        """The velocity."""
        return {"velocity": self._velocity}
