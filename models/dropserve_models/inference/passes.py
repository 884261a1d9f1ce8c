"""What running a program for a block of passes gives."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True, slots=True)
class Passes:
    """What a block of passes computed.

    Attributes
    ----------
    outputs : list of Tensor [outputs, draws or passes or 1, rows]
        The program's outputs; the first one, where `within` is set, averaged over the tail's masks.
    within : Tensor [outputs, passes or 1, rows] or None
        The variance of the first output over the tail's masks, given the masks before.
    entropy : Tensor [1, draws or passes or 1, rows] or None
        Of the first output, in nats, where it is a softmax.
    least : Tensor [outputs, 1, rows] or None
        Where a control variate has been taken off: what `within` is without, summed over the passes.
    """

    outputs: list[Tensor]
    within: Tensor | None = None
    entropy: Tensor | None = None
    least: Tensor | None = None

    def beside(self) -> dict[str, Tensor | None]:
        """All but the outputs, by their names."""
        return {"within": self.within, "entropy": self.entropy, "least": self.least}
