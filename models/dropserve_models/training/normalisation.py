"""Normalisation of hidden layers, before their activation, and its derivative; [members, rows, units]."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from dropserve_models.training.config import Norm

EPSILON = 1e-5
MOMENTUM = 0.1
"""Weight of a batch in the running statistics."""


@dataclass(frozen=True, slots=True)
class Places:
    """Which rows of a batch count.

    Attributes
    ----------
    parts : Tensor [members, rows, 1] or float
        Each row's part in the mean over the batch.
    counts : Tensor [members, 1, 1]
        How many rows count.
    """

    parts: Tensor | float
    counts: Tensor

    @classmethod
    def of(cls, x: Tensor, weights: Tensor | None) -> Places:
        """From weights [members, rows], 1 or 0 for a row that only fills a place; None: all count."""
        members, rows, _ = x.shape
        if weights is None:
            return cls(1.0 / rows, x.new_full((members, 1, 1), rows))
        weights = weights.to(x.dtype).unsqueeze(2)
        counts = weights.sum(dim=1, keepdim=True)
        return cls(weights / counts.clamp(min=1.0), counts)


@dataclass(frozen=True, slots=True)
class Normalised:
    """What a forward pass in training leaves for the backward pass.

    Attributes
    ----------
    normal : Tensor [members, rows, units]
        Before scale and shift.
    inverse : Tensor
        One by the standard deviation.
    places : Places
    moments : tuple of Tensor
        Mean and variance over a batch.
    """

    normal: Tensor
    inverse: Tensor
    places: Places
    moments: tuple[Tensor, ...] = ()


class Normalisation(Protocol):
    """One layer's, of all members."""

    def evaluate(self, x: Tensor) -> Tensor:
        """Values in eval mode."""

    def train(self, x: Tensor, places: Places) -> tuple[Tensor, Normalised]:
        """Values in training, and what `backward` needs."""

    def backward(self, gradient: Tensor, found: Normalised, leaves: Sequence[Tensor]) -> Tensor:
        """Gradient with respect to `x`; those with respect to scale and shift go into `leaves`."""

    def track(self, found: Normalised) -> None:
        """Learn what eval mode is to use of the batches seen."""


class BatchNorm:
    """Over the rows of a batch (Ioffe & Szegedy 2015), as torch.nn.BatchNorm1d.

    Eval mode uses running statistics. Their gradient is zero, so that an optimiser leaves them alone.

    Parameters
    ----------
    scale, shift, mean, variance : Tensor [members, 1, units]
        Changed in place.
    """

    def __init__(self, scale: Tensor, shift: Tensor, mean: Tensor, variance: Tensor) -> None:
        self.scale, self.shift, self.mean, self.variance = scale, shift, mean, variance

    def evaluate(self, x: Tensor) -> Tensor:
        """By the running statistics."""
        factor = self.scale * torch.rsqrt(self.variance + EPSILON)
        return torch.addcmul(self.shift - self.mean * factor, x, factor)

    def train(self, x: Tensor, places: Places) -> tuple[Tensor, Normalised]:
        """By the statistics of the batch."""
        mean = (x * places.parts).sum(dim=1, keepdim=True)
        centred = x - mean
        variance = (centred.square() * places.parts).sum(dim=1, keepdim=True)
        inverse = torch.rsqrt(variance + EPSILON)
        normal = centred * inverse
        found = Normalised(normal, inverse, places, (mean, variance))
        return torch.addcmul(self.shift, normal, self.scale), found

    def backward(self, gradient: Tensor, found: Normalised, leaves: Sequence[Tensor]) -> Tensor:
        """Each row moves the statistics of all."""
        by_scale = (gradient * found.normal).sum(dim=1, keepdim=True)
        by_shift = gradient.sum(dim=1, keepdim=True)
        leaves[0].copy_(by_scale)
        leaves[1].copy_(by_shift)
        moved = torch.addcmul(by_shift, found.normal, by_scale) * found.places.parts
        return (gradient - moved) * (self.scale * found.inverse)

    def track(self, found: Normalised) -> None:
        """Move the running statistics; the variance tracked divides by the rows less one."""
        counts, (mean, variance) = found.places.counts, found.moments
        # A single row tells no variance, and a member without rows in this step nothing at all.
        weight = torch.where(counts > 1, MOMENTUM, 0.0).to(self.mean)
        self.mean.lerp_(mean, weight)
        self.variance.lerp_(variance * (counts / (counts - 1.0).clamp(min=1.0)), weight)


class LayerNorm:
    """Over the units of a row (Ba, Kiros & Hinton 2016), as torch.nn.LayerNorm; no mode matters.

    Parameters
    ----------
    scale, shift : Tensor [members, 1, units]
    """

    def __init__(self, scale: Tensor, shift: Tensor) -> None:
        self.scale, self.shift = scale, shift

    def evaluate(self, x: Tensor) -> Tensor:
        """As in training."""
        normal, _, _ = torch.native_layer_norm(x, x.shape[2:], None, None, EPSILON)
        return torch.addcmul(self.shift, normal, self.scale)

    def train(self, x: Tensor, places: Places) -> tuple[Tensor, Normalised]:
        """Every row on its own."""
        normal, _, inverse = torch.native_layer_norm(x, x.shape[2:], None, None, EPSILON)
        return torch.addcmul(self.shift, normal, self.scale), Normalised(normal, inverse, places)

    def backward(self, gradient: Tensor, found: Normalised, leaves: Sequence[Tensor]) -> Tensor:
        """Each unit moves the statistics of its row."""
        leaves[0].copy_((gradient * found.normal).sum(dim=1, keepdim=True))
        torch.sum(gradient, dim=1, keepdim=True, out=leaves[1])
        by_normal = gradient * self.scale
        moved = (by_normal * found.normal).mean(dim=2, keepdim=True)
        moved = torch.addcmul(by_normal.mean(dim=2, keepdim=True), found.normal, moved)
        return (by_normal - moved) * found.inverse

    def track(self, found: Normalised) -> None:
        """Nothing to learn."""


LEAVES: dict[Norm, tuple[float, ...]] = {"none": (), "batch": (1.0, 0.0, 0.0, 1.0), "layer": (1.0, 0.0)}
"""The vectors that a layer's normalisation has of each unit, by what they begin with."""


def make_normalisation(norm: Norm, leaves: Sequence[Tensor]) -> Normalisation:
    """The normalisation that these vectors, [members, 1, units] each, are of."""
    return BatchNorm(*leaves) if norm == "batch" else LayerNorm(*leaves)
