"""From passes to mean, variance and the rest.

Passes come in independent strata. With x_i the N values of an output (shifted by the first, against
cancellation), S = sum x, Q = sum x^2, and s_b, q_b, n_b the same sums and the count over a stratum b, the
variance of the mean is estimated by batch means,

    V = (sum_b s_b^2 / n_b - S^2 / N) / ((strata - 1) N),

and the variance over infinitely many passes by Q/N - (S/N)^2 + V, because the expectation of the first
two terms is the variance less that of the mean, however the passes of a stratum are correlated. For strata
of one pass V = s^2 / N, and the estimate is the unbiased sample variance.

Where the last dropout is integrated, x_i is the conditional mean of a pass and its conditional variance is
added to x_i^2 in Q (law of total variance). The standard error of the standard deviation is that of batch
means of u_i = (x_i - S/N)^2, divided by twice the standard deviation (delta method).

This is numpy rather than torch: for the few rows of a typical request, calls cost more than arithmetic.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from dropserve_models.inference.masks import Strata, count_passes
from dropserve_models.prediction import FloatArray, MonteCarloOptions, Prediction

Wide: TypeAlias = NDArray[np.float64]
Rows: TypeAlias = slice | NDArray[np.intp]

_TINY = np.finfo(np.float32).tiny


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

    `shift` [outputs, rows] and `powers` [5, outputs, rows] are those of `Estimate.add`; `noise`
    [outputs, rows] is summed over the passes, `entropy` [rows] over the draws. The counts are those of
    every row.
    """

    shift: FloatArray
    powers: Wide
    noise: Wide | None
    entropy: Wide | None
    passes: int
    strata: int
    draws: int


class Estimate:
    """Accumulates blocks of passes over the rows of a request.

    All that outlives a block is allocated here, once: small arrays made between the large ones of each
    block would keep the allocator from using the latter's room again.

    Parameters
    ----------
    outputs, rows : int
    classifier : bool
        Whether the outputs are class probabilities, so that there are entropies to report.
    noise : bool
        Whether every draw has a noise variance.
    options : MonteCarloOptions
        What to return.
    """

    def __init__(
        self, outputs: int, rows: int, *, classifier: bool, noise: bool, options: MonteCarloOptions
    ) -> None:
        self._options = options
        self._shift = np.zeros((outputs, rows), np.float32)
        self._powers = np.zeros((5, outputs, rows))
        self._noise = np.zeros((outputs, rows)) if noise else None
        self._entropy = np.zeros(rows) if classifier else None
        self._passes, self._strata, self._draws, self._noise_draws = np.zeros((4, rows), np.int64)
        self._samples: FloatArray | None = None
        if options.return_samples or options.quantiles:
            self._samples = np.empty((outputs, options.passes, rows), np.float32)

    def add(
        self,
        rows: Rows,
        samples: FloatArray,
        groups: Strata,
        *,
        noise: FloatArray | None = None,
        within: FloatArray | None = None,
    ) -> None:
        """Add passes to some rows, for all of which the same passes have been added before.

        Parameters
        ----------
        rows : slice or ndarray of int
            The rows' places.
        samples : ndarray [outputs, draws, rows]
            One or more draws a pass, those of a pass side by side.
        groups : Strata
            The strata these passes fall into.
        noise : ndarray [outputs, draws, rows], optional
            The noise variance of every draw; their number may be another one.
        within : ndarray [outputs, draws, rows], optional
            The variance that each sample, then a mean, has been integrated over.
        """
        passes = count_passes(groups)
        draws = samples.shape[1] // passes
        before = int(self._passes[rows][0])
        if not before:
            self._shift[:, rows] = samples[:, 0]
        if self._samples is not None:
            self._samples[:, before : before + passes, rows] = samples
        powers = np.empty((2, *samples.shape), np.float32)
        np.subtract(samples, self._shift[:, rows][:, None], out=powers[0])
        np.square(powers[0], out=powers[1])
        if within is not None:
            powers[1] += within
        start = 0
        for size, count in groups:
            n = size * draws
            part = powers[:, :, start : start + n * count]
            # Within a stratum float32 is enough, but the fourth powers below would leave its range.
            s, q = tree_sum(part.reshape(*part.shape[:2], count, n, -1), 3).astype(np.float64)
            sums = tree_sum(np.stack((s, q, s * s, s * q, q * q)), 2)
            sums[2:] /= n
            self._powers[:, :, rows] += sums
            self._strata[rows] += count
            start += n * count
        if noise is not None and self._noise is not None:
            self._noise[:, rows] += tree_sum(noise.astype(np.float64), 1)
            self._noise_draws[rows] += noise.shape[1]
        if self._entropy is not None:
            self._entropy[rows] += tree_sum(entropy(samples), 0)
        self._passes[rows] += passes
        self._draws[rows] += start

    def replace(self, rows: Rows, totals: Totals) -> None:
        """Replace what is known of some rows by sums made elsewhere, on another device say."""
        self._shift[:, rows] = totals.shift
        self._powers[:, :, rows] = totals.powers
        if self._noise is not None:
            self._noise[:, rows] = totals.noise
        if self._entropy is not None:
            self._entropy[rows] = totals.entropy
        self._passes[rows] = totals.passes
        self._strata[rows] = totals.strata
        self._draws[rows] = totals.draws
        self._noise_draws[rows] = totals.passes

    def moments(self, rows: Rows = slice(None)) -> Moments:
        """The moments of the passes added, at least one."""
        n, strata = self._draws[rows], self._strata[rows]
        s, q, ss, sq, qq = self._powers[:, :, rows]
        mean = s / n
        squared = mean * mean
        variance = np.maximum(q / n - squared, 0.0)
        shifted = self._shift[:, rows] + mean
        if strata.min() < 2:
            return Moments(shifted, variance, None, None)
        of_mean = np.maximum(ss - s * mean, 0.0) / ((strata - 1) * n)
        # sum_b n_b (u_b - u)^2, with n_b u_b = q_b - 2 mean s_b + n_b mean^2, expanded.
        u = q - mean * s
        spread = qq - 4.0 * mean * sq + squared * (4.0 * ss + 2.0 * q - 3.0 * n * squared) - u * u / n
        of_variance = np.maximum(spread, 0.0) / ((strata - 1) * n)
        return Moments(shifted, variance + of_mean, of_mean, of_variance)

    def converged(self, rows: Rows) -> NDArray[np.bool_]:
        """Which of some rows have reached the tolerances asked for; see `MonteCarloOptions`."""
        mean_tolerance, std_tolerance = self._options.mean_tolerance, self._options.std_tolerance
        _, variance, of_mean, of_variance = self.moments(rows)
        reached = np.full(variance.shape[1], of_mean is not None)
        if mean_tolerance is not None and of_mean is not None:
            reached &= (of_mean <= mean_tolerance**2 * variance).all(axis=0)
        if std_tolerance is not None and of_variance is not None:
            # The error of the std, relative to it, is that of the variance over twice the variance.
            reached &= (of_variance <= np.square(2.0 * std_tolerance * variance)).all(axis=0)
        return reached

    def result(self, *, exact: bool = False) -> Prediction:
        """The prediction for all rows.

        `exact`: the moments are closed-form, and have no standard error.
        """
        mean, variance, of_mean, of_variance = self.moments()
        std_error = None
        if exact:
            of_mean = std_error = np.zeros_like(mean)
        elif of_variance is not None:
            std = np.sqrt(variance)
            std_error = np.divide(np.sqrt(of_variance), 2.0 * std, out=np.zeros_like(std), where=std > 0.0)
        predictive = expected = information = None
        if self._entropy is not None:
            predictive = entropy(np.clip(mean, 0.0, 1.0))
            # Entropy is concave, so only rounding can make the difference negative.
            expected = np.minimum(self._entropy / self._draws, predictive)
            information = _array(predictive - expected)
            predictive, expected = _array(predictive), _array(expected)
        quantiles = samples = None
        if self._samples is not None:
            if self._options.return_samples:
                samples = self._samples.transpose(1, 2, 0).copy()  # never a view: they are sorted below
            if self._options.quantiles:
                self._samples.sort(axis=1)
                quantiles = _quantiles(self._samples, self._options.quantiles)
        return Prediction(
            mean=_by_rows(mean),
            passes=int(self._passes.max()),
            variance=_by_rows(variance),
            standard_error=None if of_mean is None else _by_rows(np.sqrt(of_mean)),
            std_standard_error=None if std_error is None else _by_rows(std_error),
            row_passes=self._passes if self._options.adaptive else None,
            aleatoric_variance=None if self._noise is None else _by_rows(self._noise / self._noise_draws),
            predictive_entropy=predictive,
            expected_entropy=expected,
            mutual_information=information,
            quantiles=quantiles,
            samples=samples,
        )


def tree_sum(x: NDArray[Any], axis: int) -> NDArray[Any]:
    """The sum over an axis, by adding halves.

    Every addition is elementwise, so the result for one row does not depend on how many others there are,
    as it may with a library's reduction, which picks its order by shape; and pairwise summation errs less.
    """
    before = (slice(None),) * axis
    while (size := x.shape[axis]) > 1:
        half = size // 2
        total: NDArray[Any] = x[(*before, slice(half))] + x[(*before, slice(half, 2 * half))]
        if size % 2:
            total[(*before, slice(1))] += x[(*before, slice(size - 1, size))]
        x = total
    return x.squeeze(axis)


def entropy(probabilities: NDArray[Any]) -> NDArray[Any]:
    """Over the first axis, in nats; 0 log 0 is 0."""
    terms = np.maximum(probabilities, _TINY)
    np.log(terms, out=terms)
    terms *= probabilities
    negated: NDArray[Any] = -tree_sum(terms, 0)
    return negated


def _array(x: NDArray[Any]) -> FloatArray:
    return np.ascontiguousarray(x, np.float32)


def _by_rows(x: NDArray[Any]) -> FloatArray:
    """[outputs, rows] as a float32 array [rows, outputs]."""
    return np.ascontiguousarray(x.T, np.float32)


def _quantiles(ordered: FloatArray, quantiles: Sequence[float]) -> FloatArray:
    """Of sorted passes, interpolated linearly (type 7 of Hyndman & Fan, 1996), [quantiles, rows, outputs]."""
    places = np.asarray(quantiles) * (ordered.shape[1] - 1)
    below, above = np.floor(places).astype(np.intp), np.ceil(places).astype(np.intp)
    share = (places - below)[None, :, None]
    values = ordered[:, below] * (1.0 - share) + ordered[:, above] * share
    return _array(values.transpose(1, 2, 0))
