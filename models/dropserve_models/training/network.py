"""The dropout MLP: members of a fleet side by side, in one batched program."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from dropserve_models.training.config import Activation

LEAKY_SLOPE = 0.01
EVALUATION_ROWS = 8192

Masks = Sequence[Tensor | None]

ACTIVATIONS: dict[Activation, Callable[[Tensor], Tensor]] = {
    "relu": torch.relu,
    "leaky_relu": lambda x: functional.leaky_relu(x, LEAKY_SLOPE),
    "tanh": torch.tanh,
    "gelu": functional.gelu,
    "silu": functional.silu,
}

# He et al. 2015 for those that zero about half their inputs, Glorot & Bengio 2010 for tanh.
_GAINS: dict[Activation, float] = {
    "relu": 2.0,
    "leaky_relu": 2.0 / (1.0 + LEAKY_SLOPE**2),
    "tanh": 1.0,
    "gelu": 2.0,
    "silu": 2.0,
}


class Network:
    """An MLP with dropout on the input of every linear layer.

    A single model is a fleet of one member. All parameters are views of one buffer, so that an
    optimiser, a checkpoint or a copy is one operation.

    Parameters
    ----------
    sizes : sequence of int
        Units of every layer, from the features to the outputs.
    activation : str
        Between the layers; the last one is linear.
    members : int

    Attributes
    ----------
    parameters : Tensor [members, parameters]
        The buffer. Change it in place, and only under ``torch.no_grad``.
    weights : list of Tensor [members, in, out]
    biases : list of Tensor [members, 1, out]
    """

    def __init__(
        self,
        sizes: Sequence[int],
        activation: Activation,
        members: int = 1,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        self.sizes = tuple(sizes)
        self.activation: Activation = activation
        layers = list(zip(self.sizes, self.sizes[1:], strict=False))
        shapes = [shape for pair in layers for shape in (pair, (1, pair[1]))]
        counts = [rows * columns for rows, columns in shapes]
        self.parameters = torch.zeros(members, sum(counts), dtype=dtype)
        leaves = [
            part.view(members, *shape).detach().requires_grad_()
            for part, shape in zip(torch.split(self.parameters, counts, dim=1), shapes, strict=True)
        ]
        self._leaves = leaves
        self.weights = leaves[0::2]
        self.biases = leaves[1::2]

    def initialise(self, random: np.random.Generator) -> None:
        """Draw the weights from centred normal distributions of variance gain / inputs; zero the biases."""
        with torch.no_grad():
            for index, weight in enumerate(self.weights):
                last = index == len(self.weights) - 1
                gain = 1.0 if last else _GAINS[self.activation]
                drawn = random.standard_normal(weight.shape, dtype=np.float32)
                weight.copy_(torch.from_numpy(drawn).mul_(math.sqrt(gain / weight.shape[1])))
            for bias in self.biases:
                bias.zero_()

    def forward(self, x: Tensor, masks: Masks | None = None) -> Tensor:
        """Outputs [members, rows, outputs] of `x` [members, rows, features].

        Parameters
        ----------
        masks : sequence of (Tensor or None), optional
            For each linear layer what its input is multiplied by, [members, rows, in] or anything that
            broadcasts to it; None for no dropout there. Without masks: eval mode.
        """
        return self.forward_from(0, x, masks)

    def forward_from(self, layer: int, inputs: Tensor, masks: Masks | None = None) -> Tensor:
        """Outputs given what comes into the linear layer of that index, before its mask."""
        activation = ACTIVATIONS[self.activation]
        for index in range(layer, len(self.weights)):
            mask = masks[index] if masks is not None else None
            if mask is not None:
                inputs = inputs * mask
            outputs = torch.baddbmm(self.biases[index], inputs, self.weights[index])
            if index == len(self.weights) - 1:
                return outputs
            inputs = activation(outputs)
        raise ValueError(f"there is no linear layer {layer}")

    def evaluate(self, x: Tensor) -> Tensor:
        """Outputs in eval mode, without gradients, computed in blocks of rows to bound the memory."""
        with torch.no_grad():
            return torch.cat([self.forward(block) for block in torch.split(x, EVALUATION_ROWS, dim=1)], dim=1)

    def gradient(self, loss: Tensor) -> Tensor:
        """Gradient of a scalar with respect to `parameters`, [members, parameters]."""
        parts = torch.autograd.grad(loss, self._leaves)
        return torch.cat([part.flatten(1) for part in parts], dim=1)

    def is_weight(self) -> Tensor:
        """1 for weights and 0 for biases, [parameters]."""
        parts = zip(self.weights, self.biases, strict=True)
        return torch.cat([torch.cat([torch.ones(w[0].numel()), torch.zeros(b[0].numel())]) for w, b in parts])

    def limit_norms(self, max_norm: float) -> None:
        """Scale down the incoming weights of hidden units whose Euclidean norm exceeds `max_norm`.

        What Keras calls ``MaxNorm(max_norm, axis=0)`` on hidden layers; the output layer is left alone.
        """
        with torch.no_grad():
            for weight in self.weights[:-1]:
                norms = torch.linalg.vector_norm(weight, dim=1, keepdim=True)
                weight.mul_(norms.clamp(min=max_norm).reciprocal_().mul_(max_norm))
