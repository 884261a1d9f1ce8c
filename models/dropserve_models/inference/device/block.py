"""Blocks of one shape: their masks, passes and sums, as functions that can be recorded."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from dropserve_models.inference.device.graphs import Recorder, Replayed, Tensors
from dropserve_models.inference.device.masks import MaskSampler
from dropserve_models.inference.device.philox import signed
from dropserve_models.inference.device.runner import DeviceRunner, Masks
from dropserve_models.inference.device.summary import BlockSums, add_up
from dropserve_models.inference.masks import Strata, count_passes


class Block:
    """Passes that fall into certain strata, on tiles of a certain size.

    Parameters
    ----------
    runner : DeviceRunner
    sampler : MaskSampler
        For these strata.
    recorder : Recorder
    groups : Strata
    rows : int
        Of a tile.
    seeds : int
        Sets of masks: 1, or one for each row.
    integrate : bool
        Whether the last dropout is integrated.
    classifier : bool
        Whether the outputs are class probabilities.
    """

    def __init__(
        self,
        runner: DeviceRunner,
        sampler: MaskSampler,
        recorder: Recorder,
        groups: Strata,
        rows: int,
        seeds: int,
        *,
        integrate: bool,
        classifier: bool,
        device: torch.device,
    ) -> None:
        self._runner = runner
        self._sampler = sampler
        self.groups = groups
        self._passes = count_passes(groups)
        self._integrate = integrate
        self._classifier = classifier
        self._layers = runner.masked_layers(rows, integrate) if seeds == 1 else {}
        self._device = device
        self._drawn: Tensors = ()
        self._masks: Masks | None = None
        self._names: tuple[str, ...] = ()
        self._draw = Replayed(recorder)
        self._run = Replayed(recorder)

    def draw(self, seeds: list[int], stratum: int, first: int) -> None:
        """Draw the masks that `run` uses from now on.

        Parameters
        ----------
        seeds : list of int
        stratum, first : int
            The numbers of the block's first stratum and first pass.
        """
        rows = [[signed(seed) for seed in seeds], [stratum] * len(seeds), [first] * len(seeds)]
        self._draw(self._draw_masks, torch.tensor(rows).to(self._device))

    def run(self, boundary: Mapping[str, Tensor], shift: Tensor, fresh: Tensor) -> BlockSums:
        """Run the passes on a tile, and sum them up; the next tile's sums may take these sums' place.

        Parameters
        ----------
        boundary : mapping of Tensor [units, 1, rows]
            With the same names each time.
        shift, fresh : Tensor
            See `add_up`.
        """
        self._names = tuple(boundary)
        return BlockSums(*self._run(self._run_passes, shift, fresh, *boundary.values()))

    def _draw_masks(self, start: Tensor) -> Tensors:
        values = self._sampler(start)
        weights = {name: self._runner.mask(name, values[site]) for name, site in self._layers.items()}
        drawn = (*values, *weights.values())
        if self._masks is None:
            self._drawn = drawn
            self._masks = Masks(self._passes, values, weights)
        else:  # where a recorded `run` will look for them
            for old, new in zip(self._drawn, drawn, strict=True):
                old.copy_(new)
        return ()

    def _run_passes(self, shift: Tensor, fresh: Tensor, *boundary: Tensor) -> Tensors:
        assert self._masks is not None
        values = dict(zip(self._names, boundary, strict=True))
        found = self._runner.run(values, self._masks, integrate=self._integrate)
        return add_up(found, self.groups, shift, fresh, classifier=self._classifier).tensors()
