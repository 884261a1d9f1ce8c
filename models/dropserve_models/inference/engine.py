"""The Monte Carlo engine: runs a program N times with dropout on, in blocks of passes and rows.

All rows of a request share the masks of a pass, so that a pass is one function of the features and its
rows are joint samples. Blocks bound the memory; they do not change the result, because every pass's masks
are keyed by its number and every step treats each row on its own.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Sequence
from dataclasses import replace
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dropserve_models.inference.bank import MaskBank
from dropserve_models.inference.blocks import BlockMasks, GivenMasks, JoinedMasks, blocks, draw_masks
from dropserve_models.inference.deterministic import Session
from dropserve_models.inference.estimate import Estimate
from dropserve_models.inference.masks import STRATUM, Strata, fresh_seed, strata
from dropserve_models.inference.part import Part
from dropserve_models.inference.plan import make_plan
from dropserve_models.inference.program import Linear, Program
from dropserve_models.inference.runner import Runner
from dropserve_models.inference.workspace import ROW_MULTIPLE, Workspace
from dropserve_models.prediction import FloatArray, MonteCarloOptions, Prediction, concatenate, take_rows

BANK_BYTES = 64 * 2**20
"""What the masks that a model keeps from one request to the next may take. A request whose masks would take
more draws them block by block, and keeps none."""
THINNED_WORK = 1_500_000
"""Rows times multiplications a pass: from here on, gathering the weights of each pass costs less than
multiplying the units that it drops. (Measured with 4,000 to 68,000 weights.)"""
DRAW_WORK = 32
"""Multiplications that take as long as masking one unit for one draw of the tail, which thinning avoids."""
SEEDED_ROWS = 64
"""The rows that a seeded request is taken to have in that decision. It shows in the last bits of the
answer, so it must not depend on how many rows there really are."""


class Engine:
    """A program with its prefix, ready to run. Thread-safe.

    Parameters
    ----------
    program : Program
        Its outputs are the prediction and, for a heteroscedastic model, the noise variance.
    prefix : Session or None
        Computes the program's boundary; None where that is the input itself.
    classifier : bool
        Whether the outputs are class probabilities. A single column p is answered as (1 - p, p).
    memory_bytes : int
        What a request may take beyond its input and its answer.
    """

    def __init__(self, program: Program, prefix: Session | None, classifier: bool, memory_bytes: int) -> None:
        self.program = program
        self.plan = make_plan(program)
        self._prefix = prefix
        self._classifier = classifier
        self._memory = memory_bytes
        self.device = torch.device("cpu")
        self._runner = Runner(program, self.plan)
        self._workspace = Workspace(program, self.plan)
        self._bank = MaskBank(BANK_BYTES)
        layers = {step.out: step for step in program.steps if isinstance(step, Linear)}
        self._weights = sum(layers[name].weight.size for name in self.plan.fused)
        tails = [name for name, drop in self.plan.fused.items() if drop.site == self.plan.tail]
        closed = self.plan.affine is not None and len(program.outputs) == 1
        units = 0 if closed else sum(layers[name].weight.shape[1] for name in tails)
        self._draw_work = DRAW_WORK * self.plan.draws * units

    def run(self, features: FloatArray, options: MonteCarloOptions) -> Prediction:
        """Predict features [rows, features], float32 and finite.

        Raises
        ------
        MemoryLimitError
            The samples asked for, or the work on a single row, need more than `memory_bytes`.
        """
        rows = len(features)
        if self._exact(options) and len(self.program.outputs) == 1:
            options = replace(options, passes=1)
        thinned = self._thins(rows if options.seed is None else SEEDED_ROWS, options)
        if options.seed is not None and (padding := -rows % ROW_MULTIPLE):
            features = np.concatenate([features, np.repeat(features[-1:], padding, 0)])
        step = self._workspace.rows(rows, options, self._memory)
        if step < rows and options.seed is None:
            options = replace(options, seed=fresh_seed())  # all parts of a request share its masks
        parts = [
            self._run(features[start : start + step], options, thinned)
            for start in range(0, len(features), step)
        ]
        return concatenate(parts, rows)

    def together(self, rows: int, options: MonteCarloOptions) -> Hashable | None:
        """What requests must have in common to be computed together by `run_together`; None: never.

        Small requests without a seed gain by it. A seed promises bytes that depend on nothing else, and
        large requests are better thinned.
        """
        if (
            options.seed is not None
            or options.adaptive
            or self._thins(rows, options)
            or options.passes > self._workspace.pass_block
        ):
            return None
        return options

    def run_together(self, features: Sequence[FloatArray], options: MonteCarloOptions) -> list[Prediction]:
        """Several requests for which `together` gave the same, each with masks of its own.

        Parameters
        ----------
        features : sequence of ndarray [rows, features]
            A request each.
        """
        counts = [len(part) for part in features]
        joined = np.concatenate(features)
        if len(features) == 1 or len(joined) > self._workspace.rows(len(joined), options, self._memory):
            return [self.run(part, options) for part in features]
        with torch.inference_mode():
            estimate = self._estimate(len(joined), options)
            sets = [next(self._masks(options, thinned=False)) for _ in features]
            masks = JoinedMasks([each for each, _ in sets], counts)
            part = Part(self._boundary(joined), slice(None), slice(None))
            self._add(estimate, part, masks, sets[0][1], thinned=False, integrate=options.integrate)
            whole = estimate.result(exact=self._exact(options))
        ends = np.cumsum(counts).tolist()
        return [take_rows(whole, end - count, end) for count, end in zip(counts, ends, strict=True)]

    def evaluate(self, features: FloatArray) -> list[FloatArray]:
        """The outputs in eval mode, dropout off, each [rows, outputs]: to be compared with ONNX Runtime's."""
        ones = [np.ones((1, site.units), np.float32) for site in self.program.sites]
        return [value[0] for value in self.passes(features, ones)]

    def passes(self, features: FloatArray, masks: Sequence[FloatArray]) -> list[FloatArray]:
        """The outputs, each [passes, rows, outputs], for masks given: one [passes, units] for each site."""
        with torch.inference_mode():
            given = GivenMasks(masks)
            outputs = self._runner.run(
                self._boundary(features), given, thinned=False, integrate=False
            ).outputs
            return [value.expand(-1, given.passes, -1).permute(1, 2, 0).numpy() for value in outputs]

    def _run(self, features: FloatArray, options: MonteCarloOptions, thinned: bool) -> Prediction:
        """As many rows as fit the memory limit."""
        with torch.inference_mode():
            boundary = self._boundary(features)
            if thinned:
                boundary = self._runner.prepare(boundary)
            estimate = self._estimate(len(features), options)
            parts = [
                Part.of(boundary, start, stop)
                for start, stop in self._workspace.chunks(len(features), options, thinned)
            ]
            for masks, groups in self._masks(options, thinned):
                for part in parts:
                    self._add(estimate, part, masks, groups, thinned, options.integrate)
                if options.adaptive:
                    left = [part.without(estimate.converged(part.rows)) for part in parts]
                    parts = [part for part in left if part is not None]
                if not parts:
                    break
            return estimate.result(exact=self._exact(options))

    def _exact(self, options: MonteCarloOptions) -> bool:
        """Whether the prediction's moments are closed-form, with nothing left to sample."""
        return options.integrate and self.plan.affine is not None and not self.plan.body

    def _thins(self, rows: int, options: MonteCarloOptions) -> bool:
        work = self._weights + (self._draw_work if options.integrate else 0)
        return bool(self.plan.fused) and rows * work >= THINNED_WORK

    def _estimate(self, rows: int, options: MonteCarloOptions) -> Estimate:
        outputs = self.program.widths[self.program.outputs[0]]
        if self._classifier:
            outputs = max(outputs, 2)
        noise = len(self.program.outputs) > 1
        return Estimate(outputs, rows, classifier=self._classifier, noise=noise, options=options)

    def _add(
        self,
        estimate: Estimate,
        part: Part,
        masks: BlockMasks,
        groups: Strata,
        thinned: bool,
        integrate: bool,
    ) -> None:
        """Compute a block of passes for some rows, and add it to what is known of them."""
        run = partial(self._runner.run, part.boundary, thinned=thinned, integrate=integrate)
        if not thinned:
            computed, back = [run(masks)], None
        else:
            back, thinned_masks = masks.groups(self.plan.sorting_site(integrate))
            computed = [run(group) for group in thinned_masks]

        def by_pass(values: Sequence[Tensor]) -> FloatArray:
            return _by_pass(values, masks.passes, back)[..., part.columns]

        samples, *noise = map(by_pass, zip(*(passes.outputs for passes in computed), strict=True))
        if self._classifier and len(samples) == 1:
            samples = np.concatenate([1.0 - samples, samples])
        variances = [passes.within for passes in computed if passes.within is not None]
        estimate.add(
            part.rows,
            samples,
            groups,
            noise=noise[0] if noise else None,
            within=by_pass(variances) if variances else None,
        )

    def _masks(self, options: MonteCarloOptions, thinned: bool) -> Iterator[tuple[BlockMasks, Strata]]:
        """The masks of every block of passes, with its strata."""
        draws = self.plan.draws if options.integrate else 1
        limit = (
            min(2 * STRATUM, self._workspace.pass_block) if options.adaptive else self._workspace.pass_block
        )

        def draw(seed: int) -> Iterator[tuple[BlockMasks, Strata]]:
            for block in blocks(strata(options.passes, options.masks), limit):
                yield draw_masks(self.program.sites, seed, block, self.plan.tail, draws), block.groups

        if self._workspace.masks(options.passes, thinned) > BANK_BYTES:
            return draw(fresh_seed() if options.seed is None else options.seed)
        # What is gathered for a set of masks depends on whether their last dropout is integrated.
        kind = (options.passes, options.masks, options.integrate, limit, draws)
        if options.seed is not None:
            return iter(self._bank.seeded(options.seed, kind, lambda seed: list(draw(seed))))
        if thinned:  # the weights gathered for it would fill the bank, and cost less than the work they serve
            return draw(fresh_seed())
        return iter(self._bank.unseeded(kind, lambda seed: list(draw(seed))))

    def _boundary(self, features: FloatArray) -> dict[str, Tensor]:
        """The boundary values, [units, 1, rows]."""
        values = dict.fromkeys(self.program.boundary, features)
        # A residual connection may cross from the input itself, which the prefix does not compute.
        names = [name for name in values if self._prefix is not None and name in self._prefix.outputs]
        if self._prefix is not None and names:
            values |= zip(names, self._prefix.run(features, names), strict=True)
        return {name: torch.from_numpy(value.T.copy()).unsqueeze(1) for name, value in values.items()}


def _by_pass(values: Sequence[Tensor], passes: int, back: NDArray[np.intp] | None) -> FloatArray:
    """The groups' values as one, [outputs, draws, rows], pass by pass; `back` undoes the grouping."""
    if values[0].shape[1] == 1:  # the same for every pass
        same: FloatArray = values[0].numpy()
        return np.broadcast_to(same, (same.shape[0], passes, same.shape[2]))
    if back is None or len(values) == 1:
        array: FloatArray = values[0].numpy()
        return array
    joined = np.concatenate([value.numpy() for value in values], 1)
    draws = joined.shape[1] // passes
    order = back if draws == 1 else (back[:, None] * draws + np.arange(draws)).reshape(-1)
    return joined[:, order]
