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
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from dropserve_models.inference.masks import Strata, count_passes
from dropserve_models.prediction import FloatArray, Prediction

Wide = NDArray[np.float64]

_TINY = np.finfo(np.float32).tiny


class Moments(NamedTuple):
    """Mean and variance, and the variances of that mean and that variance, each [outputs, rows].

    The latter two are None for a single stratum, which can't tell.
    """

    mean: Wide
    variance: Wide
    of_mean: Wide | None
    of_variance: Wide | None


class Estimate:
    """Accumulates blocks of passes over the same rows.

    Parameters
    ----------
    quantiles : sequence of float
        To compute at the end; keeps every sample.
    keep_samples : bool
        Whether to return every sample.
    classifier : bool
        Whether the outputs are class probabilities, so that there are entropies to report.
    """

    def __init__(self, quantiles: Sequence[float], keep_samples: bool, classifier: bool) -> None:
        self.passes = 0
        self._quantiles = quantiles
        self._keep_samples = keep_samples
        self._classifier = classifier
        self._strata = 0
        self._draws = 0
        self._noise_draws = 0
        self._sums: dict[str, NDArray[Any]] = {}
        self._samples: list[FloatArray] = []

    def add(
        self, samples: FloatArray, noise: FloatArray | None, groups: Strata, within: FloatArray | None = None
    ) -> None:
        """Add passes.

        Parameters
        ----------
        samples : ndarray [outputs, draws, rows]
            One or more draws a pass, those of a pass side by side.
        noise : ndarray [outputs, draws, rows] or None
            The noise variance of every draw; their number may be another one.
        groups : Strata
            The strata these passes fall into.
        within : ndarray [outputs, draws, rows] or None
            The variance that each sample, then a mean, has been integrated over.
        """
        passes = count_passes(groups)
        draws = samples.shape[1] // passes
        if not self.passes:
            # A copy, so that the rest of the block is not kept alive.
            self._sums["shift"] = samples[:, 0].copy()
        shifted = samples - self._sums["shift"][:, None]
        powers = np.stack((shifted, np.square(shifted)))
        if within is not None:
            powers[1] += within
        start = 0
        for size, count in groups:
            n = size * draws
            part = powers[:, :, start : start + n * count]
            s, q = tree_sum(part.reshape(*part.shape[:2], count, n, -1), 3)
            # Within a block float32 is enough; blocks are added up in float64.
            sums = tree_sum(np.stack((s, q, s * s, s * q, q * q)), 2).astype(np.float64)
            sums[2:] /= n
            self._accumulate("powers", sums)
            self._strata += count
            start += n * count
        if noise is not None:
            self._accumulate("noise", tree_sum(noise.astype(np.float64), 1))
            self._noise_draws += noise.shape[1]
        if self._classifier:
            self._accumulate("entropy", tree_sum(entropy(samples), 0).astype(np.float64))
        if self._keep_samples or self._quantiles:
            self._samples.append(samples)
        self.passes += passes
        self._draws += start

    def moments(self) -> Moments:
        """The moments of all passes added, at least one."""
        n, strata = self._draws, self._strata
        s, q, ss, sq, qq = self._sums["powers"]
        mean = s / n
        squared = mean * mean
        variance = np.maximum(q / n - squared, 0.0)
        if strata < 2:
            return Moments(self._sums["shift"] + mean, variance, None, None)
        of_mean = np.maximum(ss - s * mean, 0.0) / ((strata - 1) * n)
        # sum_b n_b (u_b - u)^2, with n_b u_b = q_b - 2 mean s_b + n_b mean^2, expanded.
        u = q - mean * s
        spread = qq - 4.0 * mean * sq + squared * (4.0 * ss + 2.0 * q - 3.0 * n * squared) - u * u / n
        of_variance = np.maximum(spread, 0.0) / ((strata - 1) * n)
        return Moments(self._sums["shift"] + mean, variance + of_mean, of_mean, of_variance)

    def converged(self, mean_tolerance: float | None, std_tolerance: float | None) -> NDArray[np.bool_]:
        """Which rows have reached both tolerances, [rows]; see `MonteCarloOptions`."""
        _, variance, of_mean, of_variance = self.moments()
        reached = np.full(variance.shape[1], of_mean is not None)
        if mean_tolerance is not None and of_mean is not None:
            reached &= (of_mean <= mean_tolerance**2 * variance).all(axis=0)
        if std_tolerance is not None and of_variance is not None:
            # The error of the std, relative to it, is that of the variance over twice the variance.
            reached &= (of_variance <= np.square(2.0 * std_tolerance * variance)).all(axis=0)
        return reached

    def select(self, rows: NDArray[np.intp]) -> Estimate:
        """The estimate of some rows, given by their indices."""
        part = Estimate(self._quantiles, self._keep_samples, self._classifier)
        part.passes, part._strata = self.passes, self._strata
        part._draws, part._noise_draws = self._draws, self._noise_draws
        part._sums = {name: value[..., rows] for name, value in self._sums.items()}
        part._samples = [value[..., rows] for value in self._samples]
        return part

    def result(self, *, exact: bool = False) -> Prediction:
        """The prediction for all passes added, at least one.

        `exact`: the moments are closed-form, and have no standard error.
        """
        mean, variance, of_mean, of_variance = self.moments()
        std_error = None
        if exact:
            of_mean = std_error = np.zeros_like(mean)
        elif of_variance is not None:
            std = np.sqrt(variance)
            std_error = np.divide(np.sqrt(of_variance), 2.0 * std, out=np.zeros_like(std), where=std > 0.0)
        predictive = expected = information = samples = None
        if self._classifier:
            predictive = entropy(np.clip(mean, 0.0, 1.0))
            # Entropy is concave, so only rounding can make the difference negative.
            expected = np.minimum(self._sums["entropy"] / self._draws, predictive)
            information = _array(predictive - expected)
            predictive, expected = _array(predictive), _array(expected)
        if self._samples:
            samples = self._samples[0] if len(self._samples) == 1 else np.concatenate(self._samples, 1)
        return Prediction(
            mean=_by_rows(mean),
            passes=self.passes,
            variance=_by_rows(variance),
            standard_error=None if of_mean is None else _by_rows(np.sqrt(of_mean)),
            std_standard_error=None if std_error is None else _by_rows(std_error),
            aleatoric_variance=_by_rows(self._sums["noise"] / self._noise_draws)
            if self._noise_draws
            else None,
            predictive_entropy=predictive,
            expected_entropy=expected,
            mutual_information=information,
            quantiles=None
            if samples is None or not self._quantiles
            else _quantiles(samples, self._quantiles),
            samples=None if samples is None or not self._keep_samples else _array(samples.transpose(1, 2, 0)),
        )

    def _accumulate(self, name: str, value: Wide) -> None:
        if name in self._sums:
            self._sums[name] += value
        else:
            self._sums[name] = value


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
    weighted: NDArray[Any] = tree_sum(np.log(np.maximum(probabilities, _TINY)) * probabilities, 0)
    return -weighted


def _array(x: NDArray[Any]) -> FloatArray:
    return np.ascontiguousarray(x, np.float32)


def _by_rows(x: NDArray[Any]) -> FloatArray:
    """[outputs, rows] as a float32 array [rows, outputs]."""
    return np.ascontiguousarray(x.T, np.float32)


def _quantiles(samples: FloatArray, quantiles: Sequence[float]) -> FloatArray:
    """Over the passes, interpolated linearly (type 7 of Hyndman & Fan, 1996), [quantiles, rows, outputs]."""
    ordered = np.sort(samples, axis=1)
    places = np.asarray(quantiles) * (samples.shape[1] - 1)
    below, above = np.floor(places).astype(np.intp), np.ceil(places).astype(np.intp)
    share = (places - below)[None, :, None]
    values = ordered[:, below] * (1.0 - share) + ordered[:, above] * share
    return _array(values.transpose(1, 2, 0))
