"""Answering small requests that name no seed, alone or several together."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias, cast

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from dropserve_models.inference.bank import MaskBank
from dropserve_models.inference.boundary import Boundary
from dropserve_models.inference.estimate import quantiles_of
from dropserve_models.inference.masks import strata
from dropserve_models.inference.plan import Plan
from dropserve_models.inference.program import Program
from dropserve_models.inference.small.graph import build
from dropserve_models.inference.small.masks import MaskSet, draw_set
from dropserve_models.inference.small.moments import FIRST, NOISE, SAMPLES, STRATA, SUMS, Counts, finish
from dropserve_models.inference.small.steps import DRAWS, DRAWS_A_PASS, PASSES, boundary_name, mask_name
from dropserve_models.inference.workspace import Workspace
from dropserve_models.prediction import FloatArray, MonteCarloOptions, Prediction, concatenate, take_rows

CHUNK_BYTES = 2 * 2**20
"""What a value of the rows computed together may take: more falls out of the processor's nearer caches."""
MOST_MEMBERS = 2**16
"""Strata times draws, at most: sums over the strata are a product with a matrix of so many entries."""
KNOWN_OPTIONS = 256
"""Options whose `Recipe` is kept."""

Feeds: TypeAlias = Mapping[str, NDArray[Any]]


class SmallRequests:
    """Computes requests in one graph each, or several in one. Thread-safe.

    Parameters
    ----------
    boundary : Boundary
    classifier : bool
        Whether the outputs are class probabilities.
    bank : MaskBank
        Where masks are kept from one request to the next.
    workspace : Workspace
        Tells how many rows fit the memory that a request may take.
    """

    def __init__(
        self,
        program: Program,
        plan: Plan,
        boundary: Boundary,
        classifier: bool,
        bank: MaskBank,
        workspace: Workspace,
    ) -> None:
        self._program = program
        self._plan = plan
        self._boundary = boundary
        self._classifier = classifier
        self.bank = bank
        self._workspace = workspace
        self._width = max(program.widths.values())
        self._graphs = {
            closed: _Graph(build(program, plan, classifier=classifier, closed=closed))
            for closed in ((False, True) if plan.affine is not None else (False,))
        }
        self._recipes: dict[MonteCarloOptions, Recipe] = {}

    def most_rows(self, options: MonteCarloOptions) -> int:
        """The rows up to which a request may be answered here; 0: not even one."""
        return self._recipe(options).most

    def run(self, features: Sequence[FloatArray], options: MonteCarloOptions) -> list[Prediction]:
        """Predict requests [rows, features], none with another's masks; `options.seed` is not used."""
        recipe = self._recipe(options)
        masks = self.bank.unseeded_apart(recipe.kind, recipe.draw, len(features))
        if len(features) == 1:
            return [self._run(features[0], masks, recipe, options)]
        rows = [len(part) for part in features]
        owners = [own for own, count in zip(masks, rows, strict=True) for _ in range(count)]
        whole = self._run(np.concatenate(features), owners, recipe, options)
        ends = np.cumsum(rows).tolist()
        return [take_rows(whole, end - count, end) for count, end in zip(rows, ends, strict=True)]

    def passes(self, features: FloatArray, masks: Sequence[FloatArray]) -> list[list[FloatArray]]:
        """The outputs for masks given, one [passes, units] for each site, of every graph.

        The first graph tells the prediction [passes, rows, outputs]; the second, where there is a closed
        form, its mean over the last masks; both tell the mean noise variance [1, rows, outputs].
        """
        given = {
            mask_name(number): mask[None, :, None] if number == self._plan.tail else mask[None]
            for number, mask in enumerate(masks)
        }
        passes = max(len(mask) for mask in masks)
        sizes = _sizes(passes, 1, Counts.of(((1, passes),), 1))
        feeds = {**given, **_named(self._boundary.values(features)), **sizes}
        wanted = [SAMPLES, NOISE][: len(self._program.outputs)]
        # A single probability has got its complement before it.
        width = self._program.widths[self._program.outputs[0]]
        return [
            [value.swapaxes(0, 1)[..., -width:] for value in graph.run(wanted, feeds)]
            for graph in self._graphs.values()
        ]

    def _recipe(self, options: MonteCarloOptions) -> Recipe:
        recipe = self._recipes.get(options)
        if recipe is None:
            recipe = self._make_recipe(options)
            if len(self._recipes) >= KNOWN_OPTIONS:
                self._recipes.clear()
            self._recipes[options] = recipe
        return recipe

    def _make_recipe(self, options: MonteCarloOptions) -> Recipe:
        plan, sites, groups = self._plan, self._program.sites, strata(options.passes, options.masks)
        draws = plan.draws_a_pass(options)
        closed = options.integrate and plan.affine is not None
        drawn = 0 if closed and plan.closed else draws
        detailed = options.keeps_passes
        values = 1 if closed else draws
        # The noise variance of every pass is not an output of the graph.
        rows = 0
        of_every_pass = options.return_samples and len(self._program.outputs) > 1
        if not of_every_pass and sum(count for _, count in groups) * options.passes * values <= MOST_MEMBERS:
            rows = CHUNK_BYTES // (4 * self._width * options.passes * max(drawn, 1))
        counts = Counts.of(groups, values) if rows else Counts.of(((1, 1),), 1)
        return Recipe(
            graph=self._graphs[closed],
            outputs=[FIRST, SUMS, *[NOISE] * (len(self._program.outputs) - 1), *[SAMPLES] * detailed],
            counts=counts,
            sizes=_sizes(options.passes, draws, counts),
            kind=("small", groups, drawn),
            draw=lambda seed: draw_set(sites, seed, groups, plan.tail, drawn),
            rows=rows,
            most=self._workspace.room(options) if rows else 0,
            tells_errors=options.passes > 1 or (closed and not plan.body),
        )

    def _run(
        self,
        features: FloatArray,
        owners: Sequence[MaskSet],
        recipe: Recipe,
        options: MonteCarloOptions,
    ) -> Prediction:
        """Predict rows; `owners` has the masks of each row, or those of all."""
        boundary = _named(self._boundary.values(features))
        parts = []
        for start in range(0, len(features), recipe.rows):
            rows = slice(start, start + recipe.rows)
            masks = owners[0].arrays if len(owners) == 1 else _joined(owners[rows])
            feeds = {name: value[rows] for name, value in boundary.items()}
            found = recipe.graph.run(recipe.outputs, {**feeds, **masks, **recipe.sizes})
            parts.append(self._prediction(dict(zip(recipe.outputs, found, strict=True)), recipe, options))
        return concatenate(parts)

    def _prediction(self, found: Feeds, recipe: Recipe, options: MonteCarloOptions) -> Prediction:
        fields: dict[str, Any] = {}
        fields.update(finish(found[FIRST], found[SUMS], recipe.counts, classifier=self._classifier))
        if not recipe.tells_errors:
            del fields["standard_error"], fields["std_standard_error"]
        if NOISE in found:
            fields["aleatoric_variance"] = found[NOISE][:, 0]
        if SAMPLES in found:
            samples = found[SAMPLES].transpose(2, 1, 0)
            if options.return_samples:
                fields["samples"] = np.ascontiguousarray(samples.transpose(1, 2, 0))
            if options.quantiles:
                fields["quantiles"] = quantiles_of(np.sort(samples, axis=1), options.quantiles)
        return Prediction(passes=options.passes, **fields)


@dataclass(frozen=True, slots=True)
class Recipe:
    """What requests with the same options have in common.

    Attributes
    ----------
    graph, outputs : _Graph, list of str
        What to run, and what to ask it for.
    counts : Counts
    sizes : Feeds
        Inputs that are always the same.
    kind, draw : Hashable, callable
        The masks, for a `MaskBank`.
    rows, most : int
        Rows computed together, and rows answered together, at most; 0: not even one.
    tells_errors : bool
        Whether the passes tell how far off they may be; a single one can't.
    """

    graph: _Graph
    outputs: Sequence[str]
    counts: Counts
    sizes: Feeds
    kind: Hashable
    draw: Callable[[int], MaskSet]
    rows: int
    most: int
    tells_errors: bool


class _Graph:
    """A session on one thread: between so small steps, a second one mostly waits."""

    def __init__(self, model: bytes) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        options.log_severity_level = 4  # its errors reach us as exceptions
        self._session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
        self._inputs = [value.name for value in self._session.get_inputs()]

    def run(self, outputs: Sequence[str], feeds: Feeds) -> list[FloatArray]:
        """Compute; `feeds` may hold more than the graph takes."""
        inputs = {name: feeds[name] for name in self._inputs}
        return cast("list[FloatArray]", self._session.run(outputs, inputs))


def _named(boundary: Mapping[str, FloatArray]) -> dict[str, FloatArray]:
    return {boundary_name(name): value for name, value in boundary.items()}


def _joined(owners: Sequence[MaskSet]) -> Mapping[str, FloatArray]:
    """The masks of each row, [rows, ...]."""
    first = owners[0]
    if all(owner is first for owner in owners):
        return first.arrays
    return {name: np.concatenate([owner.arrays[name] for owner in owners]) for name in first.arrays}


def _sizes(passes: int, draws: int, counts: Counts) -> Feeds:
    return {
        STRATA: counts.members,
        PASSES: np.array([passes]),
        DRAWS: np.array([passes * draws]),
        DRAWS_A_PASS: np.array([draws]),
    }
