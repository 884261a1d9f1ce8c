"""The dropout MLP: members of a fleet side by side, in one batched program."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from dropserve_models.training.activations import ACTIVATIONS
from dropserve_models.training.config import Activation

EVALUATION_ROWS = 8192

Masks = Sequence[Tensor | None]


@dataclass(slots=True)
class Tape:
    """What a forward pass leaves for the backward pass, one entry for each linear layer.

    Attributes
    ----------
    masks : list of (Tensor or None)
    inputs : list of Tensor
        Of the linear layer, its mask applied.
    sums, values : list of Tensor
        Before and after the activation; none for the last layer.
    """

    masks: list[Tensor | None] = field(default_factory=list)
    inputs: list[Tensor] = field(default_factory=list)
    sums: list[Tensor] = field(default_factory=list)
    values: list[Tensor] = field(default_factory=list)


class Network:
    """An MLP with dropout on the input of every linear layer.

    A single model is a fleet of one member. All parameters are views of one buffer, so that an
    optimiser, a checkpoint or a copy is one operation. Gradients are propagated by hand: on networks this
    small, autograd's bookkeeping takes longer than the arithmetic.

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
        The buffer. Change it in place.
    weights : list of Tensor [members, out, in]
        As torch.nn.Linear has them: a unit's incoming weights lie together.
    biases : list of Tensor [members, 1, out]
    """

    def __init__(
        self,
        sizes: Sequence[int],
        activation: Activation,
        members: int = 1,
        dtype: torch.dtype = torch.float32,
        device: torch.device | str = "cpu",
    ) -> None:
        self.sizes = tuple(sizes)
        self.activation: Activation = activation
        layers = list(zip(self.sizes, self.sizes[1:], strict=False))
        self._shapes = [shape for inputs, outputs in layers for shape in ((outputs, inputs), (1, outputs))]
        counts = [rows * columns for rows, columns in self._shapes]
        self._use(torch.zeros(members, sum(counts), dtype=dtype, device=device))

    def _use(self, parameters: Tensor) -> None:
        self.parameters = parameters
        leaves = self._views(parameters)
        self.weights, self.biases = leaves[0::2], leaves[1::2]
        self._gradient = torch.zeros_like(parameters)
        leaves = self._views(self._gradient)
        self._gradients = list(zip(leaves[0::2], leaves[1::2], strict=True))

    def _views(self, buffer: Tensor) -> list[Tensor]:
        counts = [rows * columns for rows, columns in self._shapes]
        parts = zip(torch.split(buffer, counts, dim=1), self._shapes, strict=True)
        return [part.view(len(buffer), *shape) for part, shape in parts]

    def initialise(self, randoms: Sequence[np.random.Generator]) -> None:
        """Draw the weights from centred normal distributions of variance gain / inputs; zero the biases.

        Parameters
        ----------
        randoms : sequence of Generator
            One for each member.
        """
        for index, weight in enumerate(self.weights):
            last = index == len(self.weights) - 1
            gain = 1.0 if last else ACTIVATIONS[self.activation].gain
            for member, random in enumerate(randoms):
                drawn = random.standard_normal(weight.shape[1:], dtype=np.float32)
                weight[member].copy_(torch.from_numpy(drawn).mul_(math.sqrt(gain / weight.shape[2])))
        for bias in self.biases:
            bias.zero_()

    def forward(self, x: Tensor, masks: Masks | None = None, tape: Tape | None = None) -> Tensor:
        """Outputs [members, rows, outputs] of `x` [members, rows, features].

        Parameters
        ----------
        masks : sequence of (Tensor or None), optional
            For each linear layer what its input is multiplied by, [members, rows, in] or anything that
            broadcasts to it; None for no dropout there. Without masks: eval mode.
        tape : Tape, optional
            An empty one, to be handed to `backward`.
        """
        return self.forward_from(0, x, masks, tape)

    def forward_from(
        self, layer: int, inputs: Tensor, masks: Masks | None = None, tape: Tape | None = None
    ) -> Tensor:
        """Outputs given what comes into the linear layer of that index, before its mask."""
        activate = ACTIVATIONS[self.activation].forward
        for index in range(layer, len(self.weights)):
            mask = masks[index] if masks is not None else None
            if mask is not None:
                inputs = inputs * mask
            sums = torch.baddbmm(self.biases[index], inputs, self.weights[index].transpose(1, 2))
            last = index == len(self.weights) - 1
            values = sums if last else activate(sums)
            if tape is not None:
                tape.masks.append(mask)
                tape.inputs.append(inputs)
                tape.sums.append(sums)
                tape.values.append(values)
            inputs = values
        return inputs

    def backward(self, tape: Tape, gradient: Tensor) -> Tensor:
        """Gradient with respect to `parameters`, [members, parameters], given that of the outputs.

        Returns
        -------
        Tensor
            A buffer that the next call overwrites.
        """
        derive = ACTIVATIONS[self.activation].backward
        for index in reversed(range(len(self.weights))):
            by_weight, by_bias = self._gradients[index]
            # Not by out=: into a view that is not contiguous torch multiplies more slowly than it copies.
            by_weight.copy_(torch.bmm(gradient.transpose(1, 2), tape.inputs[index]))
            torch.sum(gradient, dim=1, keepdim=True, out=by_bias)
            if index == 0:
                break
            gradient = torch.bmm(gradient, self.weights[index])
            mask = tape.masks[index]
            if mask is not None:
                gradient.mul_(mask)
            gradient = derive(gradient, tape.sums[index - 1], tape.values[index - 1])
        return self._gradient

    def evaluate(self, x: Tensor) -> Tensor:
        """Outputs in eval mode, computed in blocks of rows to bound the memory."""
        return torch.cat([self.forward(block) for block in torch.split(x, EVALUATION_ROWS, dim=1)], dim=1)

    def holding(self, parameters: Tensor) -> Network:
        """A network of the same shape whose members have these parameters, [members, parameters]."""
        network = Network(self.sizes, self.activation, 0)
        network._use(parameters)
        return network

    def is_weight(self) -> Tensor:
        """1 for weights and 0 for biases, [parameters]."""
        parts = [
            torch.full((rows * columns,), 1.0 if index % 2 == 0 else 0.0)
            for index, (rows, columns) in enumerate(self._shapes)
        ]
        return torch.cat(parts).to(self.parameters)

    def limit_norms(self, max_norms: Tensor) -> None:
        """Scale down the incoming weights of hidden units whose Euclidean norm exceeds a bound.

        What Keras calls ``MaxNorm(max_norm, axis=0)`` on hidden layers; the output layer is left alone.

        Parameters
        ----------
        max_norms : Tensor [members, 1, 1]
            The bound of each member; infinite for none.
        """
        for weight in self.weights[:-1]:
            norms = torch.linalg.vector_norm(weight, dim=2, keepdim=True)
            above = norms > max_norms
            if bool(above.any()):
                weight.mul_(torch.where(above, max_norms / norms, 1.0))
