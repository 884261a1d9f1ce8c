"""How a request is cut for the device: into tiles of rows, and blocks of passes.

All tiles of a request have one shape, the last one being padded, so that a recorded block serves for all of
them, and a row is computed in the same way whatever the others are.
"""

from __future__ import annotations

from dropserve_models.errors import MemoryLimitError
from dropserve_models.inference.masks import STRATUM
from dropserve_models.inference.plan import Plan
from dropserve_models.inference.program import Drop, Linear, Program
from dropserve_models.inference.workspace import check_samples, live_widths
from dropserve_models.prediction import MonteCarloOptions

TILES = (16, 64, 256)
"""Rows of a tile: the fewest that hold all rows, or the most. With 100 passes, 256 rows are work enough for
the largest devices, while what a block holds still fits their caches."""
BLOCK_BYTES = 160 * 2**20
"""What a block may take: 100 passes of 256 rows through layers of 256 units."""
MAX_PASSES = 1000
"""Passes of a block, at most."""
JOINED_ROWS = TILES[0]
"""Rows of a tile of several small requests, each row with masks of its own."""

_SUMMARISED = 12 * 4  # bytes that the sums need for every draw, row and output of a block, for a moment
_ACCUMULATED = 24 * 8  # bytes that they and the result keep for every row and output
_DRAWN = 64  # bytes that a unit's masks take for every pass while they are drawn
_LAST_STRATUM = 2 * STRATUM - 1  # the passes of the largest stratum there is


class Tiling:
    """The shapes of a model's tiles and blocks.

    Parameters
    ----------
    memory_bytes : int
        What a request may take on the device.
    """

    def __init__(self, program: Program, plan: Plan, memory_bytes: int) -> None:
        self._memory = memory_bytes
        self._outputs = max(2, sum(program.widths[name] for name in program.outputs))
        self._boundary = sum(program.widths[name] for name in program.boundary)
        linearisation = plan.linearisation
        self._linear = 0 if linearisation is None else linearisation.values
        self._draws = 1 if plan.closed else plan.draws
        skipped = {drop.out for drop in plan.fused.values()}
        self._live = live_widths(program, plan.tail, skipped)
        layers = [step for step in program.steps if isinstance(step, Linear)]
        # Outputs and inputs of the layers whose weights may be masked, and how often in a pass.
        self._masked = [
            (*step.weight.shape, self._times(drop, plan))
            for step in layers
            if (drop := plan.fused.get(step.out)) is not None
        ]
        self._units = sum(
            site.units * (self._draws if number == plan.tail else 1)
            for number, site in enumerate(program.sites)
        )

    def fit(self, rows: int, options: MonteCarloOptions) -> tuple[int, int]:
        """The rows of a tile, and of the part of a request that is computed in one go: several tiles.

        A seeded request has tiles of one size, whatever its rows: it shows in the last bits of the answer.

        Raises
        ------
        MemoryLimitError
            Not even the smallest tile fits, or the samples asked for do not.
        """
        check_samples(self._outputs, rows, options, self._memory)
        fitting = {tile: part for tile in TILES if (part := self._part(tile, options)) >= tile}
        if not fitting:
            needed = self._needed(TILES[0], options) + TILES[0] * self._per_row(options)
            raise MemoryLimitError(
                f"{TILES[0]} rows take {needed:,} bytes on the device at {options.passes} passes, and a "
                f"request may use {self._memory:,}; raise the limit or ask for fewer passes"
            )
        enough = [tile for tile in fitting if tile >= rows and options.seed is None]
        tile = min(enough, default=max(fitting))
        return tile, fitting[tile]

    def passes(self, tile: int, seeds: int = 1) -> int:
        """The passes of a block of such a tile, a multiple of `STRATUM`; `seeds` sets of masks at once."""
        limit = min(BLOCK_BYTES, self._memory // 2)
        fitting = limit // self._per_pass(tile, seeds) // STRATUM * STRATUM
        return min(max(STRATUM, fitting), MAX_PASSES)

    @property
    def joins(self) -> bool:
        """Whether a tile of rows that have masks of their own fits."""
        return _LAST_STRATUM * self._per_pass(JOINED_ROWS, JOINED_ROWS) <= self._memory // 2

    def _part(self, tile: int, options: MonteCarloOptions) -> int:
        """Rows whose prefix, sums and samples fit beside a block; a multiple of the tile."""
        return (self._memory - self._needed(tile, options)) // self._per_row(options) // tile * tile

    def _needed(self, tile: int, options: MonteCarloOptions) -> int:
        """Bytes of a block: of as many passes as fit, but a stratum at least."""
        passes = max(_LAST_STRATUM, min(options.passes, self.passes(tile)))
        return passes * self._per_pass(tile) + 4 * tile * self._linear

    def _per_row(self, options: MonteCarloOptions) -> int:
        kept = options.passes if options.keeps_passes else 0
        # Samples are on the device, in order there, on the host, and turned about there.
        return 12 * self._boundary + _ACCUMULATED * self._outputs + 5 * 4 * self._outputs * kept

    def _per_pass(self, tile: int, seeds: int = 1) -> int:
        body, tail = self._live
        values = 4 * tile * max(body, self._draws * tail)
        summary = _SUMMARISED * tile * self._draws * self._outputs
        weights = sum(
            2 * 4 * times * outputs * inputs for outputs, inputs, times in self._masked if outputs <= tile
        )
        return int(values + summary + weights + _DRAWN * seeds * self._units)

    def _times(self, drop: Drop, plan: Plan) -> int:
        return self._draws if drop.site == plan.tail else 1
