"""The Monte Carlo engine: runs a program N times with dropout on, in blocks of passes and rows.

All rows of a request share the masks of a pass, so that a pass is one function of the features and its
rows are joint samples. Blocks bound the memory; they do not change the result, because every pass's masks
are keyed by its number and every step treats each row on its own.
"""

from __future__ import annotations

import logging
import weakref
from collections.abc import Generator, Hashable, Iterator, Sequence
from dataclasses import replace
from typing import cast

import numpy as np
import torch

from dropserve_models.inference.agreement import MAX_DIFFERENCE, difference
from dropserve_models.inference.bank import MaskBank
from dropserve_models.inference.blocks import BlockMasks, GivenMasks
from dropserve_models.inference.boundary import Boundary
from dropserve_models.inference.computing import computing
from dropserve_models.inference.costs import CONSTANTS, Work
from dropserve_models.inference.deterministic import Session, first_line
from dropserve_models.inference.estimate import Estimate
from dropserve_models.inference.mask_source import MaskSource
from dropserve_models.inference.masks import strata
from dropserve_models.inference.part import Part
from dropserve_models.inference.plan import make_plan
from dropserve_models.inference.program import Program
from dropserve_models.inference.runner import Runner
from dropserve_models.inference.scratch import Scratch, shared_scratch
from dropserve_models.inference.small.requests import SmallRequests
from dropserve_models.inference.whole import Whole
from dropserve_models.inference.workspace import ROW_MULTIPLE, Workspace
from dropserve_models.prediction import FloatArray, MonteCarloOptions, Prediction, concatenate

log = logging.getLogger(__name__)

BANK_BYTES = 16 * 2**20
"""What the masks that a model keeps from one request to the next may take."""
SEEDED_ROWS = 64
"""As many a seeded request counts for where thinning is chosen, whatever it has: the last bits of its answer
tell."""


class Engine:
    """A program with its prefix, ready to run. Thread-safe.

    Parameters
    ----------
    program : Program
        Its outputs are the prediction and, for a heteroscedastic model, the noise variance.
    prefix : Session or None
        Computes the program's boundary; None where that is the input itself.
    opening : Program or None
        The prefix once more, where torch can run it.
    classifier : bool
        Whether the outputs are class probabilities. A single column p is answered as (1 - p, p).
    memory_bytes : int
        What a request may take beyond its input and its answer.

    Attributes
    ----------
    costs : Costs
        By which requests without a seed are computed; the others, by the constants.
    small : SmallRequests or None
        What answers small requests, once it is prepared.
    """

    def __init__(
        self,
        program: Program,
        prefix: Session | None,
        opening: Program | None,
        classifier: bool,
        memory_bytes: int,
    ) -> None:
        self.program = program
        self.plan = make_plan(program)
        scratch = shared_scratch()
        self._empty = scratch.empty
        self._inputs = Boundary(program, prefix, opening, self._empty)
        self._classifier = classifier
        self.device = torch.device("cpu")
        self._runner = Runner(program, self.plan, scratch)
        self.workspace = Workspace(program, self.plan, memory_bytes)
        self._bank = MaskBank(BANK_BYTES)
        self._masks = MaskSource(program, self.plan, self.workspace, self._bank)
        weakref.finalize(self, _leave, self._bank, scratch).atexit = False
        self.small: SmallRequests | None = None
        self._threads = torch.get_num_threads()
        self.costs = CONSTANTS
        self.work = Work(program, self.plan)

    def run(self, features: FloatArray, options: MonteCarloOptions) -> Prediction:
        """Predict features [rows, features], float32 and finite.

        Raises
        ------
        MemoryLimitError
            The samples asked for, or the work on a single row, need more than `memory_bytes`.
        """
        *_, prediction = self.steps(features, options)
        return cast(Prediction, prediction)

    def steps(
        self, features: FloatArray, options: MonteCarloOptions, whole: Whole | None = None
    ) -> Iterator[Prediction | None]:
        """The same, pausing (None) after blocks of passes, in any threads; the prediction comes last.

        `whole`, of a request without a seed, tells that these rows are a part of it.
        """
        rows = len(features)
        options = self._settled(options)
        if whole is None and self.small is not None and self.together(rows, options) is not None:
            yield self.small.run([features], options)[0]
            return
        step = self.workspace.rows(rows, options)
        if options.seed is not None:
            thinned = self.work.thins(SEEDED_ROWS, options, CONSTANTS)
            if padding := -rows % ROW_MULTIPLE:
                features = np.concatenate([features, np.repeat(features[-1:], padding, 0)])
        else:
            if step < rows:
                whole = whole or Whole(rows)
            thinned = self.work.thins(whole.rows if whole else rows, options, self.costs)
        parts = []
        for start in range(0, len(features), step):
            part = yield from self._run(features[start : start + step], options, thinned, whole)
            parts.append(part)  # a comprehension can't pause
        yield concatenate(parts, rows)

    def together(self, rows: int, options: MonteCarloOptions) -> Hashable | None:
        """What requests must have in common to be computed together by `run_together`; None: never.

        Small requests without a seed gain by it. A seed promises bytes that depend on nothing else, and
        large requests are better thinned.
        """
        alone = options.seed is not None or options.adaptive or self.work.thins(rows, options, self.costs)
        return None if alone or self.small is None or rows > self.small.most_rows(options) else options

    def run_together(self, features: Sequence[FloatArray], options: MonteCarloOptions) -> list[Prediction]:
        """Several requests for which `together` gave the same, each with masks of its own.

        Parameters
        ----------
        features : sequence of ndarray [rows, features]
            A request each.
        """
        if self.small is None or self.together(len(features[0]), options) is None:
            return [self.run(part, options) for part in features]
        return self.small.run(features, self._settled(options))

    def prepare_small(self, probe: FloatArray) -> None:
        """Make what answers small requests.

        Where it does not agree with this engine, with dropout off, on features [rows, features] that any
        such model can answer, these requests are computed like large ones.
        """
        ones = [np.ones((1, site.units), np.float32) for site in self.program.sites]
        parts = (self._inputs, self._classifier, self._bank, self.workspace)
        try:
            small = SmallRequests(self.program, self.plan, *parts)
            answers = small.passes(probe, ones)
        except Exception as error:  # noqa: BLE001  # the runtime's exceptions have no common base class
            log.warning("small requests are computed like large ones: %s", first_line(error))
            return
        # Of the noise variance there is the mean over the passes, of which this is one.
        expected = self.passes(probe, ones)
        if all(difference(answer, expected) <= MAX_DIFFERENCE for answer in answers):
            self.small = small
        else:
            log.warning("small requests are computed like large ones: their graph answers otherwise")

    def evaluate(self, features: FloatArray) -> list[FloatArray]:
        """The outputs in eval mode, dropout off, each [rows, outputs]: to be compared with ONNX Runtime's."""
        ones = [np.ones((1, site.units), np.float32) for site in self.program.sites]
        return [value[0] for value in self.passes(features, ones)]

    def passes(self, features: FloatArray, masks: Sequence[FloatArray]) -> list[FloatArray]:
        """The outputs, each [passes, rows, outputs], for masks given: one [passes, units] for each site."""
        with torch.inference_mode():
            given, boundary = GivenMasks(masks), self._inputs.by_units(features)
            outputs = self._runner.run(boundary, given, thinned=False, integrate=False).outputs
            return [value.expand(-1, given.passes, -1).permute(1, 2, 0).numpy() for value in outputs]

    def _run(
        self, features: FloatArray, options: MonteCarloOptions, thinned: bool, whole: Whole | None
    ) -> Generator[None, None, Prediction]:
        """As many rows as fit the memory limit."""
        estimate = self._estimate(len(features), options)
        # Between the small steps of a plain run, a second thread mostly waits, and takes a core for that.
        threads = self._threads if thinned else 1
        yield from computing(self._compute(estimate, features, options, thinned, whole), threads)
        return estimate.result(exact=self._exact(options))

    def _compute(
        self,
        estimate: Estimate,
        features: FloatArray,
        options: MonteCarloOptions,
        thinned: bool,
        whole: Whole | None,
    ) -> Iterator[None]:
        boundary = self._inputs.by_units(features)
        integrate = self.plan.integrates(options)
        if thinned:
            boundary = self._runner.prepare(boundary, strata(options.passes, options.masks), integrate)
        costs = self.costs if options.seed is None else CONSTANTS
        rows = whole.rows if whole else len(features)  # what is gathered for a group serves all parts
        group = self.workspace.group(rows, options, costs) if thinned else None
        chunks = self.workspace.chunks(len(features), options, costs, group)
        parts = [Part.of(boundary, start, stop) for start, stop in chunks]
        if integrate:
            parts = [part.with_values(self._runner.linearised(part.boundary)) for part in parts]
        site = self.plan.sorting_site(integrate)
        for masks in self._masks.of(options, thinned, whole):
            if masks is None:
                yield
                continue
            groups = [masks] if group is None else masks.groups(site, group)
            for part in parts:
                self._add(estimate, part, groups, options, thinned)
            if options.adaptive:
                left = [part.without(estimate.converged(part.rows)) for part in parts]
                parts = [part for part in left if part is not None]
            if not parts:
                break
            del masks, groups  # what is gathered for them is much to hold through a pause

    def _settled(self, options: MonteCarloOptions) -> MonteCarloOptions:
        """The options with a single pass where more would be the same."""
        alike = self._exact(options) and len(self.program.outputs) == 1
        return replace(options, passes=1) if alike else options

    def _exact(self, options: MonteCarloOptions) -> bool:
        """Whether the prediction's moments are closed-form, with nothing left to sample."""
        return options.integrate and self.plan.affine is not None and not self.plan.body

    def _estimate(self, rows: int, options: MonteCarloOptions) -> Estimate:
        outputs = self.program.widths[self.program.outputs[0]]
        if self._classifier:
            outputs = max(outputs, 2)
        has = {"classifier": self._classifier, "noise": len(self.program.outputs) > 1}
        return Estimate(outputs, rows, **has, options=options, empty=self._empty)

    def _add(
        self,
        estimate: Estimate,
        part: Part,
        groups: Sequence[BlockMasks],
        options: MonteCarloOptions,
        thinned: bool,
    ) -> None:
        """Compute passes for some rows, and add them to what is known of these."""
        how = {"integrate": self.plan.integrates(options), "seeded": options.seed is not None}
        for masks in groups:
            passes = self._runner.run(part.boundary, masks, thinned=thinned, **how)
            samples, *noise = (part.chosen(value, masks.passes) for value in passes.outputs)
            if self._classifier and len(samples) == 1:
                samples = torch.cat([1.0 - samples, samples])
            known = {
                name: None if value is None else part.chosen(value, masks.passes)
                for name, value in passes.beside().items()
            }
            known["noise"] = noise[0] if noise else None
            estimate.add(part.rows, samples, masks.strata, masks.places, **known)


def _leave(bank: MaskBank, scratch: Scratch) -> None:
    """Give the system the memory that an engine which is no more had its values in."""
    bank.clear()
    scratch.clear()
