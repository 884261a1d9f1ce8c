"""What all blocks of a request add up to, kept on the device until the figures are made of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TypeAlias

import numpy as np
import torch
from torch import Tensor

from dropserve_models.inference.device.block import Block
from dropserve_models.inference.masks import count_passes
from dropserve_models.inference.moments import Totals
from dropserve_models.prediction import FloatArray

Columns: TypeAlias = slice | Tensor
"""Rows by their places: consecutive ones, or listed."""


class DeviceSums:
    """Accumulates blocks over the rows of a request.

    Parameters
    ----------
    outputs, rows : int
    noise, classifier : bool
    samples : int
        Passes to keep every output of; 0 where nobody asks for them.
    noise_samples : int
        Passes to keep every noise variance of.
    """

    def __init__(
        self,
        outputs: int,
        rows: int,
        *,
        noise: bool,
        classifier: bool,
        samples: int,
        noise_samples: int,
        device: torch.device,
    ) -> None:
        def zeros(*shape: int, dtype: torch.dtype = torch.float64) -> Tensor:
            return torch.zeros(shape, dtype=dtype, device=device)

        self._shift = zeros(outputs, rows, dtype=torch.float32)
        self._powers = zeros(5, outputs, rows)
        self._least = zeros(outputs, rows)
        self._noise = zeros(outputs if noise else 0, rows)
        self._entropy = zeros(1 if classifier else 0, rows)
        self._samples = zeros(outputs, samples, rows, dtype=torch.float32) if samples else None
        self._noise_samples = (
            zeros(outputs, noise_samples, rows, dtype=torch.float32) if noise_samples else None
        )
        self._passes = self._strata = self._draws = 0

    def add(self, block: Block, boundary: Mapping[str, Tensor], tiles: Sequence[Columns]) -> None:
        """Run a block, its masks drawn, on all rows that still take part, and add its sums.

        Parameters
        ----------
        boundary : mapping of Tensor [units, 1, rows]
        tiles : sequence of slice or Tensor
            The rows' places, a tile each. A row may be listed twice within one.
        """
        fresh = torch.tensor(self._passes == 0).to(self._shift.device)
        draws = 0
        for columns in tiles:
            # Laid out as in a recording, for the products to be the same.
            values = {name: value[..., columns].contiguous() for name, value in boundary.items()}
            found = block.run(values, self._shift[:, columns].contiguous(), fresh)
            self._shift[:, columns] = found.shift
            self._powers[:, :, columns] += found.powers
            self._least[:, columns] += found.least
            self._noise[:, columns] += found.noise
            self._entropy[:, columns] += found.entropy
            draws = found.samples.shape[1]
            passes = slice(self._passes, self._passes + draws)  # where samples are kept, a draw each
            if self._samples is not None:
                self._samples[:, passes, columns] = found.samples
            if self._noise_samples is not None:
                self._noise_samples[:, passes, columns] = found.noise_samples
        self._passes += count_passes(block.groups)
        self._strata += sum(count for _, count in block.groups)
        self._draws += draws

    def totals(self, columns: Columns) -> Totals:
        """What is known of some rows, on the host."""
        return Totals(
            shift=self._shift[:, columns].cpu().numpy(),
            powers=self._powers[:, :, columns].cpu().numpy(),
            least=self._least[:, columns].cpu().numpy(),
            noise=self._noise[:, columns].cpu().numpy() if len(self._noise) else None,
            entropy=self._entropy[0, columns].cpu().numpy() if len(self._entropy) else None,
            passes=self._passes,
            strata=self._strata,
            draws=self._draws,
        )

    def samples(self) -> FloatArray:
        """Every output kept, [passes, rows, outputs], on the host."""
        assert self._samples is not None
        return _by_passes(self._samples)

    def noise_samples(self) -> FloatArray | None:
        """Every noise variance kept, [passes, rows, outputs], on the host; None where none is."""
        return None if self._noise_samples is None else _by_passes(self._noise_samples)

    def quantiles(self, quantiles: Sequence[float]) -> FloatArray:
        """Interpolated linearly, [quantiles, rows, outputs], on the host. The samples are in order then."""
        assert self._samples is not None
        for output in self._samples:  # one at a time: sorting takes three times the room
            output.copy_(output.sort(0).values)
        places = np.asarray(quantiles) * (self._samples.shape[1] - 1)
        below, above = (
            self._samples[:, torch.from_numpy(edge(places).astype(np.int64)).to(self._samples.device)]
            for edge in (np.floor, np.ceil)
        )
        share = torch.from_numpy(places - np.floor(places)).to(self._samples.device)[:, None]
        values = below * (1.0 - share) + above * share
        return values.permute(1, 2, 0).float().cpu().contiguous().numpy()


def _by_passes(values: Tensor) -> FloatArray:
    """[outputs, passes, rows] as an array [passes, rows, outputs] of its own."""
    return values.permute(1, 2, 0).to("cpu", copy=True).contiguous().numpy()
