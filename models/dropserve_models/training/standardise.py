"""Columns shifted and scaled to mean 0 and standard deviation 1."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from dropserve_models.training.table import Floats


@dataclass(frozen=True, slots=True)
class Scaling:
    """Mean and standard deviation of columns, float32 [columns].

    The order of operations, subtract and then divide, keeps columns far from zero exact in float32.
    """

    mean: Floats
    std: Floats
    constant: NDArray[np.bool_]

    @classmethod
    def of(cls, values: NDArray[Any]) -> Self:
        """Measure columns [rows, columns] in float64; a constant one is scaled by 1.

        The standard deviation is the population's (dividing by the number of rows). NaN is left out, and in
        its place stands the mean of the others; a column of nothing else counts as 0.
        """
        exact = values.astype(np.float64)
        missing = np.isnan(exact)
        if missing.any():
            counts = (~missing).sum(axis=0)
            mean = np.nansum(exact, axis=0) / counts.clip(min=1)
            # With the mean in all gaps the deviations of the others are left, over too many rows.
            filled = cls.of(np.where(missing, mean, exact))
            std = filled.std * np.where(filled.constant, 1.0, np.sqrt(len(exact) / counts.clip(min=1)))
            return cls(filled.mean, std.astype(np.float32), filled.constant)
        std = exact.std(axis=0).astype(np.float32)
        constant = (np.ptp(exact, axis=0) == 0.0) | (std < np.finfo(np.float32).tiny)
        return cls(exact.mean(axis=0).astype(np.float32), np.where(constant, np.float32(1), std), constant)

    def apply(self, values: NDArray[Any]) -> Floats:
        """Standardise columns, in the precision of `values`; float32 [rows, columns]."""
        with np.errstate(over="ignore"):  # answers that aren't finite are refused, whatever made them so
            standardised: Floats = ((values - self.mean) / self.std).astype(np.float32)
        return standardised
