"""What a block of passes adds up to, on the device: the sums that figures are made of on the host."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from dropserve_models.inference.masks import Strata, count_passes
from dropserve_models.inference.passes import Passes

_TINY = torch.finfo(torch.float32).tiny


@dataclass(frozen=True, slots=True)
class BlockSums:
    """The sums of a block of passes over some rows.

    Attributes
    ----------
    shift : Tensor [outputs, rows]
        What has been taken off the samples, against cancellation.
    powers : Tensor of float64 [5, outputs, rows]
        See `Estimate.add`.
    least : Tensor of float64 [outputs, rows]
        See `Estimate.add`.
    noise : Tensor of float64 [outputs or 0, rows]
        Of a pass with several draws, their mean.
    entropy : Tensor of float64 [1 or 0, rows]
    samples : Tensor [outputs, draws, rows]
    noise_samples : Tensor [outputs or 0, draws, rows]
        Of a pass with several draws perhaps one alone.
    """

    shift: Tensor
    powers: Tensor
    least: Tensor
    noise: Tensor
    entropy: Tensor
    samples: Tensor
    noise_samples: Tensor

    def tensors(self) -> tuple[Tensor, ...]:
        """The attributes in order, as a recorded function returns them."""
        return self.shift, self.powers, self.least, self.noise, self.entropy, self.samples, self.noise_samples


def add_up(found: Passes, groups: Strata, shift: Tensor, fresh: Tensor, *, classifier: bool) -> BlockSums:
    """Sum up a block.

    Parameters
    ----------
    groups : Strata
        The strata that the passes fall into.
    shift : Tensor [outputs, rows]
        That of earlier blocks of these rows.
    fresh : Tensor of bool []
        Whether there are none; the first sample is the shift then.
    """
    passes = count_passes(groups)
    samples, *noise = (_at_least(values, passes) for values in found.outputs)
    if classifier and len(samples) == 1:
        samples = torch.cat((1.0 - samples, samples))
    shift = torch.where(fresh, samples[:, 0], shift)
    first = samples - shift[:, None]
    second = first.square()
    if found.within is not None:
        second = second + found.within
    outputs, draws, rows = len(samples), samples.shape[1] // passes, samples.shape[2]
    powers = torch.zeros((5, *shift.shape), dtype=torch.float64, device=shift.device)
    start = 0
    for size, count in groups:
        n = size * draws
        # Within a stratum float32 is enough, but the fourth powers would leave its range.
        s, q = (
            values[:, start : start + n * count].reshape(outputs, count, n, rows).sum(2).double()
            for values in (first, second)
        )
        powers += torch.stack((s, q, s * s / n, s * q / n, q * q / n)).sum(2)
        start += n * count
    return BlockSums(
        shift,
        powers,
        torch.zeros_like(powers[0]) if found.least is None else found.least[:, 0].double(),
        noise[0].double().sum(1) * (passes / noise[0].shape[1]) if noise else powers.new_zeros(0, rows),
        entropy(samples).double().sum(0, keepdim=True) if classifier else powers.new_zeros(0, rows),
        samples,
        noise[0] if noise else samples[:0],
    )


def entropy(probabilities: Tensor) -> Tensor:
    """Over the first axis, in nats; 0 log 0 is 0."""
    return -(probabilities.clamp_min(_TINY).log() * probabilities).sum(0)


def _at_least(values: Tensor, passes: int) -> Tensor:
    """Values that are the same for every pass, once a pass."""
    return values.expand(-1, passes, -1) if values.shape[1] == 1 else values
