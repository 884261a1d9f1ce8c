"""The Monte Carlo engine on an accelerator; see `inference.engine`, whose answers it gives."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Hashable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dropserve_models.errors import MemoryLimitError
from dropserve_models.inference.blocks import blocks
from dropserve_models.inference.deterministic import Session
from dropserve_models.inference.device.block import Block
from dropserve_models.inference.device.boundary import boundary_values
from dropserve_models.inference.device.graphs import Record, Recorder, cuda_record
from dropserve_models.inference.device.masks import MaskSampler
from dropserve_models.inference.device.runner import DeviceRunner, Masks
from dropserve_models.inference.device.sums import Columns, DeviceSums
from dropserve_models.inference.device.tiling import JOINED_ROWS, Tiling
from dropserve_models.inference.estimate import Estimate
from dropserve_models.inference.masks import Strata, fresh_seed, strata
from dropserve_models.inference.plan import ADAPTIVE_PASSES, make_plan
from dropserve_models.inference.program import Program
from dropserve_models.inference.whole import Whole
from dropserve_models.prediction import FloatArray, MonteCarloOptions, Prediction, concatenate, take_rows

KEPT_BLOCKS = 8
"""Shapes of blocks that a model keeps, with their masks and recordings; the least recently used go first."""


class DeviceEngine:
    """A program with its prefix, ready to run on a device. Thread-safe; one request at a time computes.

    Parameters
    ----------
    program, prefix, classifier
        See `Engine`.
    memory_bytes : int
        What a request may take on the device.
    device : torch.device
    record : Record, optional
        Records functions; default: as CUDA graphs on a CUDA device, not at all elsewhere.
    """

    def __init__(
        self,
        program: Program,
        prefix: Session | None,
        classifier: bool,
        memory_bytes: int,
        device: torch.device,
        record: Record | None = None,
    ) -> None:
        self.program = program
        self.plan = make_plan(program)
        self.device = device
        self._prefix = prefix
        self._classifier = classifier
        self._tiling = Tiling(program, self.plan, memory_bytes)
        self._runner = DeviceRunner(program, self.plan, device)
        self._stream: torch.cuda.Stream | None = None
        if device.type == "cuda":
            self._stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
            record = record or cuda_record(self._stream)
        self._recorder = Recorder(record)
        self._blocks: OrderedDict[Hashable, Block] = OrderedDict()
        self._lock = threading.Lock()
        outputs = program.widths[program.outputs[0]]
        self._outputs = max(outputs, 2) if classifier else outputs
        self._noise = len(program.outputs) > 1

    @property
    def graphs(self) -> int:
        """Blocks' functions recorded so far; 0 where nothing can be."""
        return self._recorder.count

    def run(self, features: FloatArray, options: MonteCarloOptions, whole: Whole | None = None) -> Prediction:
        """Predict features [rows, features], float32 and finite; of a request without a seed, a part's.

        Raises
        ------
        MemoryLimitError
            The samples asked for, or the work on a single tile, need more than `memory_bytes`, or the device
            has no room left.
        """
        rows = len(features)
        if self._exact(options) and not self._noise:
            options = replace(options, passes=1)
        tile, part = self._tiling.fit(rows, options)
        features = _padded(features, tile)
        whole = whole or Whole(rows)
        seed = whole.seed if options.seed is None else options.seed
        parts = [
            self._run(features[start : start + part], tile, seed, options)
            for start in range(0, len(features), part)
        ]
        return concatenate(parts, rows)

    def steps(
        self, features: FloatArray, options: MonteCarloOptions, whole: Whole | None = None
    ) -> Iterator[Prediction | None]:
        """The same in one step: what the device has begun it does to the end."""
        yield self.run(features, options, whole)

    def together(self, rows: int, options: MonteCarloOptions) -> Hashable | None:
        """See `Engine.together`: small requests without a seed."""
        alone = options.seed is not None or options.adaptive or rows >= JOINED_ROWS
        return None if alone or not self._tiling.joins else options

    def run_together(self, features: Sequence[FloatArray], options: MonteCarloOptions) -> list[Prediction]:
        """Several requests for which `together` gave the same, each with masks of its own."""
        predictions: list[Prediction] = []
        waiting: list[FloatArray] = []
        for part in features:
            if sum(map(len, waiting)) + len(part) > JOINED_ROWS:
                predictions += self._run_joined(waiting, options)
                waiting = []
            waiting.append(part)
        return predictions + self._run_joined(waiting, options)

    def evaluate(self, features: FloatArray) -> list[FloatArray]:
        """The outputs in eval mode, dropout off, each [rows, outputs]: to be compared with ONNX Runtime's."""
        with self._computing():
            values = [torch.ones(site.units, 1, 1, device=self.device) for site in self.program.sites]
            boundary = self._boundary(features, len(features))
            outputs = self._runner.run(boundary, Masks(1, values, {}), integrate=False).outputs
            return [value[:, 0].t().cpu().contiguous().numpy() for value in outputs]

    def warm_up(self, features: FloatArray) -> None:
        """Answer the default request three times: libraries are loaded then, and its blocks recorded."""
        for _ in range(3):
            self.run(features, MonteCarloOptions())

    def _run_joined(self, features: Sequence[FloatArray], options: MonteCarloOptions) -> list[Prediction]:
        """Requests that fit a tile together."""
        counts = [len(part) for part in features]
        if len(features) == 1 or sum(counts) > JOINED_ROWS:
            return [self.run(part, options) for part in features]
        if self._exact(options) and not self._noise:
            options = replace(options, passes=1)
        seeds = [seed for count in counts for seed in [fresh_seed()] * count]
        seeds += seeds[-1:] * (JOINED_ROWS - len(seeds))
        whole = self._run(_padded(np.concatenate(features), JOINED_ROWS), JOINED_ROWS, seeds, options)
        ends = np.cumsum(counts).tolist()
        return [take_rows(whole, end - count, end) for count, end in zip(counts, ends, strict=True)]

    def _run(
        self, features: FloatArray, tile: int, seed: int | list[int], options: MonteCarloOptions
    ) -> Prediction:
        """As many rows as fit the memory limit, all tiles full; one seed, or one for each row of a tile."""
        seeds = seed if isinstance(seed, list) else [seed]
        rows = len(features)
        detailed = options.keeps_passes
        limit = self._tiling.passes(tile, len(seeds))
        if options.adaptive:
            limit = min(limit, ADAPTIVE_PASSES)
        estimate = Estimate(
            self._outputs,
            rows,
            classifier=self._classifier,
            noise=self._noise,
            options=replace(options, quantiles=(), return_samples=False),  # these are made of `sums`
        )
        with self._computing():
            boundary = self._boundary(features, tile if options.seed is not None else rows)
            sums = DeviceSums(
                self._outputs,
                rows,
                classifier=self._classifier,
                noise=self._noise,
                samples=options.passes if detailed else 0,
                noise_samples=options.passes if options.return_samples and self._noise else 0,
                device=self.device,
            )
            left = np.arange(rows)
            for block in blocks(strata(options.passes, options.masks), limit):
                made = self._block(block.groups, tile, len(seeds), options)
                made.draw(seeds, block.stratum, block.first)
                tiles = [
                    self._columns(left[start : start + tile], tile) for start in range(0, len(left), tile)
                ]
                sums.add(made, boundary, tiles)
                if options.adaptive:
                    estimate.replace(left, sums.totals(torch.from_numpy(left).to(self.device)))
                    left = left[~estimate.converged(left)]
                    if not len(left):
                        break
            if not options.adaptive:
                estimate.replace(slice(None), sums.totals(slice(None)))
            samples = sums.samples() if options.return_samples else None
            noise_samples = sums.noise_samples()
            quantiles = sums.quantiles(options.quantiles) if options.quantiles else None
        prediction = estimate.result(exact=self._exact(options))
        if not detailed:
            return prediction
        return replace(prediction, samples=samples, noise_samples=noise_samples, quantiles=quantiles)

    def _columns(self, rows: NDArray[np.intp], tile: int) -> Columns:
        """Where a tile's rows are; where there are too few, the last one fills up."""
        if rows[-1] - rows[0] + 1 == tile == len(rows):
            return slice(int(rows[0]), int(rows[-1]) + 1)
        filled = np.concatenate([rows, np.repeat(rows[-1:], tile - len(rows))])
        return torch.from_numpy(filled).to(self.device)

    def _block(self, groups: Strata, tile: int, seeds: int, options: MonteCarloOptions) -> Block:
        integrate = self.plan.integrates(options)
        # Where the tail is in closed form, nothing reads its masks.
        draws = 1 if integrate and self.plan.closed else self.plan.draws_a_pass(options)
        key = (groups, tile, seeds, integrate, draws)
        if key in self._blocks:
            self._blocks.move_to_end(key)
            return self._blocks[key]
        sampler = MaskSampler(self.program.sites, groups, self.plan.tail, draws, self.device)
        block = Block(
            self._runner,
            sampler,
            self._recorder,
            groups,
            tile,
            seeds,
            integrate=integrate,
            classifier=self._classifier,
            device=self.device,
        )
        self._blocks[key] = block
        if len(self._blocks) > KEPT_BLOCKS:
            self._blocks.popitem(last=False)
        return block

    def _boundary(self, features: FloatArray, rows: int) -> dict[str, Tensor]:
        return boundary_values(self.program.boundary, self._prefix, features, rows, self.device)

    def _exact(self, options: MonteCarloOptions) -> bool:
        """Whether the prediction's moments are closed-form, with nothing left to sample."""
        return options.integrate and self.plan.affine is not None and not self.plan.body

    @contextmanager
    def _computing(self) -> Iterator[None]:
        """The device to oneself, and its work in order: what is recorded shares memory."""
        stream = nullcontext() if self._stream is None else torch.cuda.stream(self._stream)
        try:
            with self._lock, torch.inference_mode(), stream:
                yield
        except torch.OutOfMemoryError as error:
            reason = str(error).splitlines()[0]
            raise MemoryLimitError(
                f"the device has too little memory left for this request: {reason}"
            ) from error


def _padded(features: FloatArray, multiple: int) -> FloatArray:
    """Features whose last row is repeated until there are a multiple of so many rows."""
    missing = -len(features) % multiple
    return np.concatenate([features, np.repeat(features[-1:], missing, 0)]) if missing else features
