"""The dropout MLP: members of a fleet side by side, in one batched program."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor

from dropserve_models.training.activations import ACTIVATIONS
from dropserve_models.training.config import Activation, Norm
from dropserve_models.training.embedding import add_up, embed
from dropserve_models.training.normalisation import LEAVES, Normalised, Places, make_normalisation

EVALUATION_ROWS = 8192

Masks = Sequence[Tensor | None]


@dataclass(slots=True)
class Tape:
    """What a forward pass in training leaves for the backward pass, one entry for each linear layer.

    Attributes
    ----------
    weights : Tensor [members, rows] or None
        1, or 0 for a row that only fills a place; None where every place holds a row.
    masks : list of (Tensor or None)
    inputs : list of Tensor
        Of the linear layer, its mask applied.
    sums, values : list of Tensor
        Before and after the activation; none for the last layer.
    normals : list of Normalised
        Of the hidden layers, where they are normalised.
    positions : Tensor of int64 [members, rows, embeddings] or None
    """

    weights: Tensor | None = None
    masks: list[Tensor | None] = field(default_factory=list)
    inputs: list[Tensor] = field(default_factory=list)
    sums: list[Tensor] = field(default_factory=list)
    values: list[Tensor] = field(default_factory=list)
    normals: list[Normalised] = field(default_factory=list)
    positions: Tensor | None = None


class Network:
    """An MLP with dropout on the input of every linear layer.

    A single model is a fleet of one member. All parameters are views of one buffer, so that an
    optimiser, a checkpoint or a copy is one operation. Gradients are propagated by hand: on networks this
    small, autograd's bookkeeping takes longer than the arithmetic.

    Parameters
    ----------
    sizes : sequence of int
        Units of every layer, from the inputs, embeddings among them, to the outputs.
    activation : str
        Between the layers; the last one is linear.
    members : int
    norm : {"none", "batch", "layer"}
        Of the hidden layers, before their activation.
    residual : bool
        Whether a hidden layer as wide as the one before adds that one's values, before dropout, to its own.
    embeddings : sequence of (int, int)
        Positions and width of each; the last columns of the features are positions in them.

    Attributes
    ----------
    parameters : Tensor [members, parameters]
        The buffer. Change it in place.
    weights : list of Tensor [members, out, in]
        As torch.nn.Linear has them: a unit's incoming weights lie together.
    biases : list of Tensor [members, 1, out]
    tables : list of Tensor [members, positions, width]
        The embeddings.
    norms : list of Normalisation
        Of each hidden layer; empty where there is none.
    skips : list of bool
        For each linear layer, whether its hidden layer adds what comes in.
    """

    def __init__(
        self,
        sizes: Sequence[int],
        activation: Activation,
        members: int = 1,
        dtype: torch.dtype = torch.float32,
        device: torch.device | str = "cpu",
        *,
        norm: Norm = "none",
        residual: bool = False,
        embeddings: Sequence[tuple[int, int]] = (),
    ) -> None:
        self.sizes = tuple(sizes)
        self.activation: Activation = activation
        self.norm: Norm = norm
        self.residual = residual
        self.embeddings = tuple(embeddings)
        layers = list(pairwise(self.sizes))
        last = len(layers) - 1
        self.skips = [
            residual and 0 < index < last and inputs == outputs
            for index, (inputs, outputs) in enumerate(layers)
        ]
        self._shapes: list[tuple[int, int]] = []
        for index, (inputs, outputs) in enumerate(layers):
            normal = len(LEAVES[norm]) if index < last else 0
            self._shapes += [(outputs, inputs), *[(1, outputs)] * (1 + normal)]
        self._shapes += self.embeddings
        counts = [rows * columns for rows, columns in self._shapes]
        self._use(torch.zeros(members, sum(counts), dtype=dtype, device=device))

    def _use(self, parameters: Tensor) -> None:
        self.parameters = parameters
        self.weights, self.biases, normal, self.tables = self._views(parameters)
        self.norms = [make_normalisation(self.norm, leaves) for leaves in normal if leaves]
        self._gradient = torch.zeros_like(parameters)
        self._gradients = self._views(self._gradient)

    def _views(self, buffer: Tensor) -> tuple[list[Tensor], list[Tensor], list[list[Tensor]], list[Tensor]]:
        """Weights, biases and the vectors of the normalisations, layer by layer; and the embeddings."""
        counts = [rows * columns for rows, columns in self._shapes]
        parts = zip(torch.split(buffer, counts, dim=1), self._shapes, strict=True)
        leaves = iter([part.view(len(buffer), *shape) for part, shape in parts])
        weights, biases, normal = [], [], []
        for hidden in range(len(self.sizes) - 1, 0, -1):
            weights.append(next(leaves))
            biases.append(next(leaves))
            normal.append([next(leaves) for _ in LEAVES[self.norm]] if hidden > 1 else [])
        return weights, biases, normal, list(leaves)

    def initialise(self, randoms: Sequence[np.random.Generator]) -> None:
        """Draw the weights from centred normal distributions of variance gain / inputs; zero the biases.

        Normalisations begin as torch has them: scale 1, shift 0, running mean 0 and variance 1.

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
        for table in self.tables:
            for member, random in enumerate(randoms):
                drawn = random.standard_normal(table.shape[1:], dtype=np.float32)
                table[member].copy_(torch.from_numpy(drawn).mul_(1.0 / math.sqrt(table.shape[2])))
            table[:, -1] = 0.0  # of what is not among the training rows
        _, biases, normal, _ = self._views(self.parameters)
        for bias in biases:
            bias.zero_()
        for leaves in normal:
            for leaf, start in zip(leaves, LEAVES[self.norm], strict=False):
                leaf.fill_(start)

    def forward(self, x: Tensor, masks: Masks | None = None, tape: Tape | None = None) -> Tensor:
        """Outputs [members, rows, outputs] of `x` [members, rows, features].

        Parameters
        ----------
        masks : sequence of (Tensor or None), optional
            For each linear layer what its input is multiplied by, [members, rows, in] or anything that
            broadcasts to it; None for no dropout there. Without masks: eval mode.
        tape : Tape, optional
            An empty one, to be handed to `backward`. With it batch norm goes by the batch, without it by its
            running statistics.
        """
        if self.tables:
            x, positions = embed(self.tables, x)
            if tape is not None:
                tape.positions = positions
        return self.forward_from(0, x, masks, tape)

    def forward_from(
        self, layer: int, inputs: Tensor, masks: Masks | None = None, tape: Tape | None = None
    ) -> Tensor:
        """Outputs given what comes into the linear layer of that index, before its mask."""
        activate = ACTIVATIONS[self.activation].forward
        places = Places.of(inputs, tape.weights) if tape is not None and self.norms else None
        for index in range(layer, len(self.weights)):
            before = inputs
            mask = masks[index] if masks is not None else None
            if mask is not None:
                inputs = inputs * mask
            sums = torch.baddbmm(self.biases[index], inputs, self.weights[index].transpose(1, 2))
            if tape is not None:
                tape.masks.append(mask)
                tape.inputs.append(inputs)
            if index == len(self.weights) - 1:
                return sums
            if self.norms and tape is not None and places is not None:
                sums, found = self.norms[index].train(sums, places)
                tape.normals.append(found)
            elif self.norms:
                sums = self.norms[index].evaluate(sums)
            values = activate(sums)
            if tape is not None:
                tape.sums.append(sums)
                tape.values.append(values)
            inputs = values + before if self.skips[index] else values
        return inputs

    def backward(self, tape: Tape, gradient: Tensor) -> Tensor:
        """Gradient with respect to `parameters`, [members, parameters], given that of the outputs.

        Returns
        -------
        Tensor
            A buffer that the next call overwrites.
        """
        derive = ACTIVATIONS[self.activation].backward
        weights, biases, normal, tables = self._gradients
        above = gradient
        for index in reversed(range(len(self.weights))):
            # Not by out=: into a view that is not contiguous torch multiplies more slowly than it copies.
            weights[index].copy_(torch.bmm(gradient.transpose(1, 2), tape.inputs[index]))
            # Batch norm subtracts the bias again. Its gradient is to be zero without rounding errors, which
            # Adam would take for a direction.
            if self.norm != "batch" or index == len(self.weights) - 1:
                torch.sum(gradient, dim=1, keepdim=True, out=biases[index])
            if index == 0 and not tables:
                break
            by_values = torch.bmm(gradient, self.weights[index])
            mask = tape.masks[index]
            if mask is not None:
                by_values.mul_(mask)
            if index == 0 and tape.positions is not None:
                add_up(by_values, tape.positions, tables)
                break
            if self.skips[index]:
                by_values.add_(above)
            above = by_values
            gradient = derive(by_values, tape.sums[index - 1], tape.values[index - 1])
            if self.norms:
                found = tape.normals[index - 1]
                gradient = self.norms[index - 1].backward(gradient, found, normal[index - 1])
        return self._gradient

    def track(self, tape: Tape) -> None:
        """Let batch norm learn its running statistics from a forward pass."""
        for norm, found in zip(self.norms, tape.normals, strict=True):
            norm.track(found)

    def evaluate(self, x: Tensor) -> Tensor:
        """Outputs in eval mode, computed in blocks of rows to bound the memory."""
        return torch.cat([self.forward(block) for block in torch.split(x, EVALUATION_ROWS, dim=1)], dim=1)

    def holding(self, parameters: Tensor) -> Network:
        """A network of the same shape whose members have these parameters, [members, parameters]."""
        network = Network(
            self.sizes,
            self.activation,
            0,
            norm=self.norm,
            residual=self.residual,
            embeddings=self.embeddings,
        )
        network._use(parameters)
        return network

    def is_weight(self) -> Tensor:
        """1 for weights, those of embeddings among them, and 0 for all others, [parameters]."""
        ones = torch.zeros_like(self.parameters[:1])
        weights, _, _, tables = self._views(ones)
        for weight in (*weights, *tables):
            weight.fill_(1.0)
        return ones[0]

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
