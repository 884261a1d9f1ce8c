"""What passes add up to, and the moments that this tells of."""

from __future__ import annotations

from typing import NamedTuple

from dropserve_models.inference.totals import Wide
from dropserve_models.prediction import FloatArray

LEAST_SHARE = 0.5
"""The variance is at least this part of its known part, that over the last masks, whatever a control variate
leaves. More would show as a bias at very few passes, less would let a rare row look surer than it is."""


class Moments(NamedTuple):
    """Mean and variance, and the variances of that mean and that variance, each [outputs, rows].

    The latter two are None for a single stratum, which can't tell.
    """

    mean: Wide
    variance: Wide
    of_mean: Wide | None
    of_variance: Wide | None


class Totals(NamedTuple):
    """Sums over all passes of some rows, made elsewhere; see `Estimate.replace`.

    `shift` [outputs, rows] and `powers` [5, outputs, rows] are those of `Estimate.add`; `noise` and `least`
    [outputs, rows] are summed over the passes, `entropy` [rows] over the draws. The counts are those of
    every row.
    """

    shift: FloatArray
    powers: Wide
    least: Wide
    noise: Wide | None
    entropy: Wide | None
    passes: int
    strata: int
    draws: int
