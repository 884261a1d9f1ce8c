"""What the suffix of a graph reads: values of the prefix, or the input itself."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from dropserve_models.inference.deterministic import Session
from dropserve_models.inference.opening import Opening
from dropserve_models.inference.program import Program
from dropserve_models.inference.scratch import Empty
from dropserve_models.prediction import FloatArray


class Boundary:
    """Computes the boundary of a program.

    Parameters
    ----------
    prefix : Session or None
        None where the input itself is all there is.
    opening : Program or None
        The prefix once more, where torch can run it.
    empty : Empty
        Makes what large results are written to.
    """

    def __init__(
        self, program: Program, prefix: Session | None, opening: Program | None, empty: Empty = torch.empty
    ) -> None:
        self._names = program.boundary
        self._opening = None if opening is None else Opening(opening, empty)
        self._prefix = prefix
        # A residual connection may cross from the input itself, which the prefix does not compute.
        known = () if prefix is None else prefix.outputs
        self._computed = [name for name in program.boundary if name in known]

    def values(self, features: FloatArray) -> dict[str, FloatArray]:
        """The values [rows, units], by name, of features [rows, features]."""
        values = dict.fromkeys(self._names, features)
        if self._prefix is not None and self._computed:
            values.update(zip(self._computed, self._prefix.run(features, self._computed), strict=True))
        return values

    def by_units(self, features: FloatArray) -> dict[str, Tensor]:
        """The values [units, 1, rows], by name, computed in torch where it can."""
        known = {} if self._opening is None else self._opening.values(features)
        if all(name in known for name in self._names):
            return {name: known[name] for name in self._names}
        return {
            name: torch.from_numpy(np.require(value, requirements="W")).t().contiguous().unsqueeze(1)
            for name, value in self.values(features).items()
        }
