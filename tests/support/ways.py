"""Every way in which a Monte Carlo request may be computed, each asked for by name and shown its masks."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol
from unittest import mock

import numpy as np
from numpy.typing import NDArray

from dropserve_models.inference import mask_source
from dropserve_models.inference import plan as plan_module
from dropserve_models.inference.blocks import BlockMasks, blocks, draw_masks, quick_masks
from dropserve_models.inference.masks import strata
from dropserve_models.inference.program import Site
from dropserve_models.inference.small.masks import MaskSet, stratum_of_passes
from dropserve_models.prediction import MonteCarloOptions, Prediction
from support.devices import device_engine_of
from support.engines import Array, NumberedMasks, engine_of
from support.exact import Wide


@dataclass(frozen=True)
class Drawn:
    """The masks of a request's passes.

    Attributes
    ----------
    masks : list of ndarray [passes, draws a pass, units]
        0, or 1/(1-p), of each site; draws are 1 but for the last Dropout, which is left out where nothing
        reads its masks.
    strata : ndarray of int [passes]
        In which stratum each pass is.
    """

    masks: list[Wide]
    strata: NDArray[np.intp]


class Way(Protocol):
    """Computes requests in one way."""

    def ask(self, rows: Array, options: MonteCarloOptions) -> Prediction:
        """Answer a request with a seed; where the way is that of requests without one, by another's masks."""

    def drawn(self, options: MonteCarloOptions) -> Drawn:
        """The masks of the request asked last, which had these options."""


class InBlocks:
    """The engine as it computes large requests, and those with a seed, whatever their size."""

    def __init__(self, data: bytes, *, thinned: bool, seeded: bool, orthogonal: bool) -> None:
        self.engine = engine_of(data)
        self.engine.work.thins = lambda *_: thinned  # type: ignore[method-assign]  # else the size decides
        self.engine._masks._bank = NumberedMasks()
        self._seeded = seeded
        self._weights = 0 if orthogonal else 10**9
        self._blocks: list[BlockMasks] = []

    def ask(self, rows: Array, options: MonteCarloOptions) -> Prediction:
        self._blocks.clear()
        with (
            mock.patch.object(mask_source, "draw_masks", self._noting(draw_masks)),
            mock.patch.object(mask_source, "quick_masks", self._noting(quick_masks)),
            mock.patch.object(mask_source, "fresh_seed", return_value=options.seed),
            mock.patch.object(plan_module, "ORTHOGONAL_WEIGHTS", self._weights),
        ):
            return self.engine.run(rows, options if self._seeded else replace(options, seed=None))

    @property
    def shares_products(self) -> bool:
        """Whether the draws of the request asked last were orthogonal ones."""
        return all(block.negative is not None for block in self._blocks)

    def drawn(self, options: MonteCarloOptions) -> Drawn:
        return _of_blocks(self._blocks, self.engine.program.sites)

    def _noting(self, draw: Callable[..., Iterator[BlockMasks]]) -> Callable[..., Iterator[BlockMasks]]:
        def noted(*args: Any, **options: Any) -> Iterator[BlockMasks]:
            for block in draw(*args, **options):
                self._blocks.append(block)
                yield block

        return noted


class InOneGraph:
    """What answers small requests without a seed."""

    def __init__(self, data: bytes, rows: Array) -> None:
        engine = engine_of(data)
        engine.prepare_small(rows)
        assert engine.small is not None
        engine.small.bank = self._bank = NumberedMasks()
        self._small, self._settled = engine.small, engine._settled

    def ask(self, rows: Array, options: MonteCarloOptions) -> Prediction:
        return self._small.run([rows], self._settled(options))[0]

    def drawn(self, options: MonteCarloOptions) -> Drawn:
        assert isinstance(self._bank.last, MaskSet)
        found = [array[0].astype(np.float64) for array in self._bank.last.arrays.values()]
        masks = [mask if mask.ndim == 3 else mask[:, None] for mask in found]
        return Drawn(masks, stratum_of_passes(strata(options.passes, options.masks)))


class OnDevice:
    """The engine for accelerators, on the CPU."""

    def __init__(self, data: bytes) -> None:
        self._engine = device_engine_of(data)

    def ask(self, rows: Array, options: MonteCarloOptions) -> Prediction:
        return self._engine.run(rows, options)

    def drawn(self, options: MonteCarloOptions) -> Drawn:
        """Those of the engine with that seed, bit for bit: see `test_device_masks`."""
        assert options.seed is not None
        plan, sites = self._engine.plan, self._engine.program.sites
        parts = blocks(strata(options.passes, options.masks))
        draws = plan.draws_a_pass(options)
        return _of_blocks(draw_masks(sites, options.seed, parts, plan.tail, draws), sites)


def _in_blocks(*, thinned: bool, seeded: bool, orthogonal: bool = False) -> Callable[[bytes, Array], Way]:
    return lambda data, _: InBlocks(data, thinned=thinned, seeded=seeded, orthogonal=orthogonal)


WAYS: dict[str, Callable[[bytes, Array], Way]] = {
    "in blocks": _in_blocks(thinned=False, seeded=True),
    "in blocks, no seed": _in_blocks(thinned=False, seeded=False),
    "thinned": _in_blocks(thinned=True, seeded=True),
    "thinned, no seed": _in_blocks(thinned=True, seeded=False),
    "thinned, orthogonal draws": _in_blocks(thinned=True, seeded=False, orthogonal=True),
    "in one graph": InOneGraph,
    "on a device": lambda data, _: OnDevice(data),
}
"""All of them, for the bytes of a model and rows to try it with. Draws are orthogonal only where
`Plan.orthogonal_draws` lets them be."""


def _of_blocks(parts: Iterable[BlockMasks], sites: Sequence[Site]) -> Drawn:
    parts = list(parts)
    masks = []
    for number, site in enumerate(sites):
        kept = [part.binary(number).numpy().reshape(part.passes, -1, site.units) for part in parts]
        masks.append(np.concatenate(kept).astype(np.float64) / (1.0 - site.rate))
    sizes = [size for part in parts for size, count in part.strata for _ in range(count)]
    return Drawn(masks, np.repeat(np.arange(len(sizes)), sizes))
