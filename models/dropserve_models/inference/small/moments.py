"""From the draws of a small request to mean, variance and the rest.

What is computed is what `inference.estimate` computes, and says of its formulas. The graph sums up over each
stratum (`write_sums`); what is left is a few numbers, for which numpy is quicker (`finish`). With sums s_b of
the values, q_b of their squares (the variance they have been integrated over included) and counts n_b over a
stratum, N values in B strata, means x = sum s_b / N and q = sum q_b / N:

    c_b = s_b - n_b x                        u_b = q_b - n_b q - 2 x c_b
    V = sum_b c_b^2 / n_b / ((B - 1) N)      the variance of the mean
    variance = q - x^2 + V                   sum_b u_b^2 / n_b / ((B - 1) N)     its own variance
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dropserve_models.inference.masks import Strata
from dropserve_models.inference.moments import LEAST_SHARE
from dropserve_models.inference.small.masks import stratum_of_passes
from dropserve_models.inference.small.writer import Writer
from dropserve_models.prediction import FloatArray

STRATA = "strata"
"""An input: 0 or 1, [strata, draws], which draws are in which stratum."""
FIRST, SUMS, NOISE, SAMPLES = "first", "sums", "noise", "samples"
"""Outputs: the first draw [rows, 1, outputs]; sums over the strata [rows, strata, 2 or 3 outputs], of the
values less the first, of their squares, and of a classifier's p log p, or else of what the variance is at
least, where the graph tells; the mean noise variance [rows, 1,
outputs]; the values themselves [rows, draws, outputs]."""

Wide = NDArray[np.float64]

_TINY = float(np.finfo(np.float32).tiny)


def write_sums(
    writer: Writer, values: str, within: str | None, least: str | None, *, classifier: bool
) -> None:
    """Add the outputs `FIRST`, `SUMS` and `SAMPLES`.

    Parameters
    ----------
    values : str
        [rows, draws, outputs].
    within : str or None
        The variance that each has been integrated over, likewise.
    least : str or None
        The same without a control variate.
    """
    op = writer.op
    first = op("Slice", values, writer.integers(0), writer.integers(1), writer.integers(1))
    shifted = op("Sub", values, first)  # against cancellation
    squares = op("Mul", shifted, shifted)
    parts = [shifted, squares if within is None else op("Add", squares, within)]
    if classifier:
        logarithm = op("Log", op("Max", values, writer.constant(_TINY)))  # 0 log 0 is 0
        parts.append(op("Mul", logarithm, values))
    elif least is not None:
        parts.append(least)
    sums = op("MatMul", writer.input(STRATA, 2), op("Concat", *parts, axis=2))
    writer.output(first, FIRST)
    writer.output(sums, SUMS)
    writer.output(values, SAMPLES)


def write_noise(writer: Writer, values: str) -> None:
    """Add the output `NOISE`: the mean of values [rows, draws, outputs]."""
    writer.output(writer.op("ReduceMean", values, writer.integers(1)), NOISE)


@dataclass(frozen=True, slots=True)
class Counts:
    """How many values are in which stratum.

    Attributes
    ----------
    members : ndarray [strata, values]
        The input `STRATA`.
    each : ndarray [strata, 1]
        The values of each stratum.
    spread : float
        1 / ((strata - 1) values); 0 for a single stratum, which can't tell.
    """

    members: FloatArray
    each: Wide
    spread: float

    @classmethod
    def of(cls, groups: Strata, draws: int) -> Counts:
        """For the passes of `draw_set`, with so many values each."""
        strata = np.repeat(stratum_of_passes(groups), draws)
        members = (strata == np.arange(strata[-1] + 1)[:, None]).astype(np.float32)
        degrees = len(members) - 1
        spread = 1.0 / (degrees * len(strata)) if degrees else 0.0
        return cls(members, members.sum(axis=1, keepdims=True, dtype=np.float64), spread)


def finish(first: FloatArray, sums: FloatArray, counts: Counts, *, classifier: bool) -> dict[str, FloatArray]:
    """The fields of a prediction that the outputs `FIRST` and `SUMS` tell of."""
    outputs = first.shape[2]
    wide = sums.astype(np.float64)
    means = wide.sum(axis=1, keepdims=True) / counts.members.shape[1]
    mean = means[:, :, :outputs]
    deviations = wide[:, :, : 2 * outputs] - counts.each * means[:, :, : 2 * outputs]
    deviations[:, :, outputs:] -= 2.0 * mean * deviations[:, :, :outputs]
    deviations *= deviations
    deviations /= counts.each
    of_both = deviations.sum(axis=1) * counts.spread
    mean = mean[:, 0]
    rest = means[:, 0, 2 * outputs :]
    least = 0.0 if classifier or not rest.size else LEAST_SHARE * rest
    variance = np.maximum(means[:, 0, outputs : 2 * outputs] - mean * mean, least) + of_both[:, :outputs]
    errors = np.sqrt(of_both)
    std_error = errors[:, outputs:] / (2.0 * np.maximum(np.sqrt(variance), _TINY))
    mean += first[:, 0]
    fields = {
        "mean": _array(mean),
        "variance": _array(variance),
        "standard_error": _array(errors[:, :outputs]),
        "std_standard_error": _array(std_error),
    }
    if classifier:
        np.clip(mean, _TINY, 1.0, out=mean)
        predictive = -(np.log(mean) * mean).sum(axis=1)
        # Entropy is concave, so only rounding can make the passes' larger.
        expected = np.minimum(-rest.sum(axis=1), predictive)
        fields["predictive_entropy"] = _array(predictive)
        fields["expected_entropy"] = _array(expected)
        fields["mutual_information"] = _array(predictive - expected)
    return fields


def _array(values: NDArray[Any]) -> FloatArray:
    return values.astype(np.float32)
