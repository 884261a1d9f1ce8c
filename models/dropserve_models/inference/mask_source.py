"""The masks of a request: drawn anew, or kept from another part of it or another request."""

from __future__ import annotations

from collections.abc import Iterator

from dropserve_models.inference.bank import MaskBank
from dropserve_models.inference.blocks import BlockMasks, RequestMasks, blocks, draw_masks, quick_masks
from dropserve_models.inference.masks import fresh_seed, strata
from dropserve_models.inference.plan import ADAPTIVE_PASSES, Plan
from dropserve_models.inference.program import Program
from dropserve_models.inference.whole import Whole
from dropserve_models.inference.workspace import WEIGHT_BYTES, Workspace
from dropserve_models.prediction import MonteCarloOptions


class MaskSource:
    """Where an engine's masks come from.

    Parameters
    ----------
    program : Program
    plan : Plan
    workspace : Workspace
    bank : MaskBank
        Keeps those of seeds, of requests in parts, and of small requests.
    """

    def __init__(self, program: Program, plan: Plan, workspace: Workspace, bank: MaskBank) -> None:
        self._sites = program.sites
        self._plan = plan
        self._workspace = workspace
        self._bank = bank

    def of(
        self, options: MonteCarloOptions, thinned: bool, whole: Whole | None
    ) -> Iterator[BlockMasks | None]:
        """The masks of every block of passes, each followed by None: the time to pause.

        Of what was gathered for a block there is then no more than the bank keeps, provided that whoever
        asked for it lets go of the block.
        """
        draws = self._plan.draws_a_pass(options)
        limit = self._workspace.pass_block
        if options.adaptive:
            limit = min(limit, ADAPTIVE_PASSES)

        def draw(seed: int) -> Iterator[BlockMasks]:
            groups = blocks(strata(options.passes, options.masks), limit)
            wanted = (self._sites, seed, groups, self._plan.tail, draws)
            if options.seed is not None:
                return draw_masks(*wanted)
            return quick_masks(*wanted, orthogonal_draws=thinned and self._plan.orthogonal_draws(options))

        # What is gathered for a set of masks depends on whether their last dropout is integrated.
        kind = (options.passes, options.masks, self._plan.integrates(options), limit, draws, whole is None)
        large = self._workspace.masks(options.passes, thinned) > WEIGHT_BYTES  # to be there at once
        again = whole.seed if whole else options.seed  # asked for by other parts, or requests
        if again is not None and not large:
            kept = self._bank.seeded(again, kind, lambda seed: RequestMasks(draw(seed)))
        elif large or thinned:
            # Weights gathered for thinning would fill the bank, and cost less than the work they serve.
            for block in draw(fresh_seed() if again is None else again):
                yield block
                del block
                yield None
            return
        else:
            kept = self._bank.unseeded(kind, lambda seed: RequestMasks(draw(seed)))
        yield from self._blocks(kept)

    def _blocks(self, kept: RequestMasks) -> Iterator[BlockMasks | None]:
        try:
            for block in kept:
                yield block
                self._bank.trim(kept)
                yield None
        finally:
            self._bank.trim(kept)
