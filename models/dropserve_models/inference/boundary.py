"""What the suffix of a graph reads: values of the prefix, or the input itself."""

from __future__ import annotations

from dropserve_models.inference.deterministic import Session
from dropserve_models.inference.program import Program
from dropserve_models.prediction import FloatArray


class Boundary:
    """Computes the boundary of a program.

    Parameters
    ----------
    prefix : Session or None
        None where the input itself is all there is.
    """

    def __init__(self, program: Program, prefix: Session | None) -> None:
        self._names = program.boundary
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
