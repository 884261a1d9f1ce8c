"""How many rows are computed at a time: bounded by the memory a request may use, and by the cache."""

from __future__ import annotations

from collections.abc import Iterator

from dropserve_models.errors import MemoryLimitError
from dropserve_models.inference.blocks import PASS_BLOCK
from dropserve_models.inference.costs import CONSTANTS, Costs
from dropserve_models.inference.masks import STRATUM
from dropserve_models.inference.plan import Plan
from dropserve_models.inference.program import Drop, Linear, Program, arguments
from dropserve_models.prediction import MonteCarloOptions

GROUP = 20
"""Passes that are thinned together, at least: every group takes some steps of its own."""
GROUP_SHARE = 0.375
"""What part of `Costs.cache_bytes` the values of more passes may take."""
WEIGHT_BYTES = 64 * 2**20
"""What the weights gathered for one block of passes may take."""
ROW_MULTIPLE = 16
"""Seeded requests are padded to a multiple of this, and rows computed in such multiples: with fewer rows,
matrix libraries take other paths that round differently, and a row's bytes must not depend on how many
others there are."""

_SUMMARISED = 8 * 4  # bytes that an Estimate needs for every draw, row and output of a block, for a moment
_ACCUMULATED = 16 * 8  # bytes that it and its result keep for every row and output
_UNITS = 40  # bytes of masks and of lists of units, for every pass and unit


class Workspace:
    """The memory that running a program takes.

    Parameters
    ----------
    memory_bytes : int
        What a request may take beyond its input and its answer.

    Attributes
    ----------
    pass_block : int
        Passes computed together. It depends on the model alone, so that sums are formed in the same order
        on every call.
    """

    def __init__(self, program: Program, plan: Plan, memory_bytes: int) -> None:
        self._memory = memory_bytes
        self._outputs = max(2, sum(program.widths[name] for name in program.outputs))
        layers = {step.out: step.weight for step in program.steps if isinstance(step, Linear)}
        shared = [name for name, drop in plan.fused.items() if drop.x in program.boundary]
        self._boundary = sum(program.widths[name] for name in (*program.boundary, *shared))
        linearisation = plan.linearisation
        self._linear = 0
        if linearisation is not None:
            self._linear = linearisation.values
            kept = linearisation.program
            self._boundary += sum(kept.widths[name] for name in kept.outputs)
        self._plan = plan
        # When thinning, a linear layer reads past its Dropout, and no dropped value is ever there.
        self._live = {
            False: live_widths(program, plan.tail, set()),
            True: live_widths(program, plan.tail, {drop.out for drop in plan.fused.values()}),
        }
        weights = sum(layers[name].size for name in plan.fused)
        tail = sum(layers[name].size for name, drop in plan.fused.items() if drop.site == plan.tail)
        units = sum(site.units for site in program.sites)
        self._pass = {True: 4 * (weights + tail * plan.draws) + _UNITS * units, False: 8 * plan.draws * units}
        fitting = WEIGHT_BYTES // self._pass[True] // STRATUM * STRATUM
        self.pass_block = min(max(STRATUM, fitting), PASS_BLOCK)

    def masks(self, passes: int, thinned: bool) -> int:
        """Bytes, at most, of the masks of so many passes and, when thinning, the weights they leave."""
        return passes * self._pass[thinned]

    def samples(self, options: MonteCarloOptions) -> int:
        """Bytes of the outputs of every pass, for one row."""
        return 4 * self._outputs * options.passes

    def rows(self, rows: int, options: MonteCarloOptions) -> int:
        """Rows whose prefix, sums and samples fit into the memory limit beside the work of a chunk.

        Raises
        ------
        MemoryLimitError
            Not even one row does, or the samples asked for do not.
        """
        per_row = 8 * self._boundary + _ACCUMULATED * self._outputs
        samples = self.samples(options)
        check_samples(self._outputs, rows, options, self._memory)
        if options.keeps_passes:
            per_row += 4 * samples  # as computed, put together, sorted, and transposed
        chunk = max(CONSTANTS.cache_bytes, ROW_MULTIPLE * self._per_row(options))
        work = chunk + self.masks(min(options.passes, self.pass_block), thinned=True)
        fitting = (self._memory - work) // per_row // ROW_MULTIPLE * ROW_MULTIPLE
        if fitting < ROW_MULTIPLE:
            raise MemoryLimitError(
                f"a few rows take {work + ROW_MULTIPLE * per_row:,} bytes at {options.passes} passes, and a "
                f"request may use {self._memory:,}; raise the limit or ask for fewer passes"
            )
        return int(fitting)

    def room(self, options: MonteCarloOptions) -> int:
        """The rows that fit the memory limit at once, with what they are answered."""
        try:
            rows = self.rows(1, options)
        except MemoryLimitError:
            return 0  # who asks is told by `rows`
        return min(rows, self._memory // self.samples(options)) if options.return_samples else rows

    def group(self, rows: int, options: MonteCarloOptions, costs: Costs) -> int:
        """How many passes are thinned together, at least; see `BlockMasks.groups`.

        The fewer rows, the more. With a seed always as many, since sums are formed group by group.
        """
        if options.seed is not None:
            return GROUP
        together = min(rows, self.most_rows(options, costs, GROUP))
        return max(
            GROUP, int(GROUP_SHARE * costs.cache_bytes / (together * self._per_pass(options, thinned=True)))
        )

    def most_rows(self, options: MonteCarloOptions, costs: Costs, group: int | None) -> int:
        """The most rows that are computed together; see `chunks`."""
        fitting = costs.cache_bytes // self._per_row(options, group)
        return max(ROW_MULTIPLE, fitting // ROW_MULTIPLE * ROW_MULTIPLE)

    def chunks(
        self, rows: int, options: MonteCarloOptions, costs: Costs, group: int | None
    ) -> Iterator[tuple[int, int]]:
        """Ranges of rows to compute together, of nearly equal size.

        `group` tells how many passes are thinned together, at least; None: there is no thinning.
        """
        count = -(-rows // self.most_rows(options, costs, group))
        size = -(-rows // count // ROW_MULTIPLE) * ROW_MULTIPLE if count > 1 else rows
        for start in range(0, rows, size):
            yield start, min(start + size, rows)

    def _per_row(self, options: MonteCarloOptions, group: int | None = None) -> int:
        """Bytes, for one row, of the values that are there at once, and of the summary of a whole block."""
        block = min(options.passes, self.pass_block)
        at_once = block if group is None else min(block, 2 * group)
        return at_once * self._per_pass(options, thinned=group is not None) + 4 * self._linear

    def _per_pass(self, options: MonteCarloOptions, *, thinned: bool) -> int:
        """The same, for one row and pass."""
        draws = 1 if self._plan.closed else self._plan.draws_a_pass(options)
        body, tail = self._live[thinned]
        return 4 * max(body, draws * tail) + _SUMMARISED * draws * self._outputs


def check_samples(outputs: int, rows: int, options: MonteCarloOptions, memory_bytes: int) -> None:
    """Raise MemoryLimitError where the samples asked for take more than the limit."""
    samples = 4 * outputs * options.passes * rows
    if options.return_samples and samples > memory_bytes:
        raise MemoryLimitError(
            f"{options.passes} samples of {rows} rows take {samples:,} bytes, and a request "
            f"may use {memory_bytes:,}; ask for fewer rows or passes, or for quantiles"
        )


def live_widths(program: Program, tail: int, skipped: set[str]) -> tuple[int, int]:
    """The most units alive at once before the tail's Dropout, and from it on; `skipped` are never made."""
    last_read = {name: number for number, step in enumerate(program.steps) for name in arguments(step)}
    alive = {name: program.widths[name] for name in program.boundary}
    most = {False: sum(alive.values()), True: 1}
    in_tail = False
    for number, step in enumerate(program.steps):
        in_tail = in_tail or (isinstance(step, Drop) and step.site == tail)
        if step.out not in skipped:
            alive[step.out] = program.widths[step.out]
        beside = (
            alive if not in_tail else {name: alive[name] for name in alive if name in _after(program, tail)}
        )
        most[in_tail] = max(most[in_tail], sum(beside.values()))
        for name in list(alive):
            if last_read.get(name, -1) <= number and name not in program.outputs:
                del alive[name]
    return most[False], most[True]


def _after(program: Program, tail: int) -> set[str]:
    """The values that depend on the tail's Dropout: only of these is there one for every draw."""
    reached: set[str] = set()
    for step in program.steps:
        if (isinstance(step, Drop) and step.site == tail) or reached.intersection(arguments(step)):
            reached.add(step.out)
    return reached
