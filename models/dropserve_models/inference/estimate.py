"""From passes to mean, variance and the rest.

Passes come in independent strata. With x_i the N values of an output (shifted by the first, against
cancellation), S = sum x, Q = sum x^2, and s_b, q_b, n_b the same sums and the count over a stratum b, the
variance of the mean is estimated by batch means,

    V = (sum_b s_b^2 / n_b - S^2 / N) / ((strata - 1) N),

and the variance over infinitely many passes by Q/N - (S/N)^2 + V, because the expectation of the first
two terms is the variance less that of the mean, however the passes of a stratum are correlated. For strata
of one pass V = s^2 / N, and the estimate is the unbiased sample variance.

Where the last dropout is integrated, x_i is the conditional mean of a pass and its conditional variance is
added to x_i^2 in Q (law of total variance). Where a control variate changes both (see `control_variate`), the
variance is still at least half the mean of the conditional ones. The standard error of the standard deviation
is that of batch means of u_i = (x_i - S/N)^2, divided by twice the standard deviation (delta method).

Sums over the passes of a block are formed in torch, in its threads and its float32; what outlives the block
is numpy's, in float64.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dropserve_models.inference.masks import Strata, count_passes
from dropserve_models.inference.moments import LEAST_SHARE, Moments, Totals
from dropserve_models.inference.pointwise import total_
from dropserve_models.inference.scratch import Empty, twice
from dropserve_models.inference.totals import added_, entropy_of
from dropserve_models.prediction import FloatArray, MonteCarloOptions, Prediction

Rows: TypeAlias = slice | NDArray[np.intp]

FEWEST_STRATA = 4
"""Before there are so many, nothing is concluded from how far they are apart."""
_TINY = np.finfo(np.float32).tiny
_LARGEST = 1e100
"""Of tolerances, whose squares would leave float64's range; any answer is within it."""


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
    empty : Empty
        Makes what large intermediate values are written to.
    """

    def __init__(
        self,
        outputs: int,
        rows: int,
        *,
        classifier: bool,
        noise: bool,
        options: MonteCarloOptions,
        empty: Empty = torch.empty,
    ) -> None:
        self._options = options
        self._empty = empty
        # A seed promises the same bytes whatever a row is computed with.
        self._sum = total_ if options.seed is not None else torch.sum
        self._shift = np.zeros((outputs, rows), np.float32)
        self._powers = np.zeros((5, outputs, rows))
        self._least = np.zeros((outputs, rows))
        self._noise = np.zeros((outputs, rows)) if noise else None
        self._entropy = np.zeros(rows) if classifier else None
        self._passes, self._strata, self._draws, self._noise_draws = np.zeros((4, rows), np.int64)
        self._samples: FloatArray | None = None
        self._noise_samples: FloatArray | None = None
        if options.keeps_passes:
            self._samples = np.empty((outputs, options.passes, rows), np.float32)
        if options.return_samples and noise:
            self._noise_samples = np.empty((outputs, options.passes, rows), np.float32)

    def add(
        self,
        rows: Rows,
        samples: Tensor,
        groups: Strata,
        passes: Rows,
        *,
        noise: Tensor | None = None,
        within: Tensor | None = None,
        entropy: Tensor | None = None,
        least: Tensor | None = None,
    ) -> None:
        """Add whole strata of passes to some rows, for all of which the same passes have been added before.

        Parameters
        ----------
        rows : slice or ndarray of int
            The rows' places.
        samples : Tensor [outputs, draws, rows]
            One or more draws a pass, those of a pass side by side.
        groups : Strata
            The strata these passes fall into.
        passes : slice or ndarray of int
            The passes' places.
        noise : Tensor [outputs, draws, rows], optional
            The noise variance of every draw; their number may be another one.
        within : Tensor [outputs, draws, rows], optional
            The variance that each sample, then a mean, has been integrated over.
        entropy : Tensor [1, draws, rows], optional
            Of a classifier's samples, in nats, where it is known.
        least : Tensor [outputs, 1 or passes, rows], optional
            What `within` adds up to without a control variate.
        """
        count, start = count_passes(groups), 0
        draws = samples.shape[1] // count
        if not self._passes[rows][0]:
            self._shift[:, rows] = samples[:, 0].numpy()
        if self._samples is not None:
            self._samples[:, passes, rows] = samples.numpy()
        if self._entropy is not None:
            entropies = self._entropies(samples) if entropy is None else entropy[0]
            self._entropy[rows] += self._sum(entropies, 0).numpy()
        outputs, _, width = samples.shape
        powers = twice(samples, self._empty)
        deviations, squares = powers
        torch.sub(samples, torch.from_numpy(self._shift)[:, None, rows], out=deviations)
        torch.mul(deviations, deviations, out=squares)
        if within is not None:
            squares += within
        for size, strata in groups:
            n = size * draws
            part = powers[:, :, start : start + n * strata].view(2, outputs, strata, n, width)
            terms = np.empty((strata, 5, outputs, width))
            # Within a stratum float32 is enough, but the fourth powers below would leave its range.
            terms[:, :2] = self._sum(part, 3).permute(2, 0, 1, 3).numpy()
            np.multiply(terms[:, :1], terms[:, :2], out=terms[:, 2:4])
            np.multiply(terms[:, 1], terms[:, 1], out=terms[:, 4])
            totals = added_(terms, 0)
            if n > 1:
                totals[2:] /= n
            self._powers[:, :, rows] += totals
            self._strata[rows] += strata
            start += n * strata
        if least is not None:
            self._least[:, rows] += least[:, 0].numpy()
        if noise is not None and self._noise is not None:
            self._noise[:, rows] += self._sum(noise.double(), 1).numpy()
            self._noise_draws[rows] += noise.shape[1]
            if self._noise_samples is not None:
                self._noise_samples[:, passes, rows] = noise.numpy()
        self._passes[rows] += count
        self._draws[rows] += start

    def _entropies(self, probabilities: Tensor) -> Tensor:
        """Over the first axis, in nats; 0 log 0 is 0."""
        terms = probabilities.clamp_min(float(_TINY)).log_().mul_(probabilities)
        return self._sum(terms, 0).neg_()

    def replace(self, rows: Rows, totals: Totals) -> None:
        """Replace what is known of some rows by sums made elsewhere, on another device say."""
        self._shift[:, rows] = totals.shift
        self._powers[:, :, rows] = totals.powers
        self._least[:, rows] = totals.least
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
        n, strata = self._draws[rows].astype(np.float64), self._strata[rows]
        s, q, ss, sq, qq = self._powers[:, :, rows]
        mean = s / n
        squared = mean * s
        variance = np.maximum(q - squared, LEAST_SHARE * self._least[:, rows]) / n
        shifted = self._shift[:, rows] + mean
        if strata.min() < 2:
            return Moments(shifted, variance, None, None)
        freedom = (strata - 1) * n
        of_mean = np.maximum(ss - squared, 0.0) / freedom
        # sum_b n_b (u_b - u)^2; as a constant in u changes nothing, with n_b u_b = q_b - 2 mean s_b.
        u = q - 2.0 * squared
        spread = qq - 4.0 * mean * (sq - mean * ss) - u * u / n
        of_variance = np.maximum(spread, 0.0) / freedom
        return Moments(shifted, variance + of_mean, of_mean, of_variance)

    def converged(self, rows: Rows) -> NDArray[np.bool_]:
        """Which of some rows have reached the tolerances asked for; see `MonteCarloOptions`.

        Rows are looked at time and again, and would stop where their standard error happens to come out
        small: two strata are often nearly equal. So none stops before `FEWEST_STRATA`, and squares of errors
        count for 1 + 4 / (strata - 1) times what they are. Errors are then the tolerance in the root mean
        square, within a few hundredths, however many strata that takes (`test_adaptive`).
        """
        strata = int(self._strata[rows].min())
        mean_tolerance, std_tolerance = self._options.mean_tolerance, self._options.std_tolerance
        _, variance, of_mean, of_variance = self.moments(rows)
        reached = np.full(variance.shape[1], strata >= FEWEST_STRATA)
        caution = 1.0 + 4.0 / max(strata - 1, 1)
        if mean_tolerance is not None and of_mean is not None:
            reached &= (caution * of_mean <= min(mean_tolerance, _LARGEST) ** 2 * variance).all(axis=0)
        if std_tolerance is not None and of_variance is not None:
            # The error of the std, relative to it, is that of the variance over twice the variance.
            allowed = np.square(2.0 * min(std_tolerance, _LARGEST) * variance)
            reached &= (caution * of_variance <= allowed).all(axis=0)
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
            std_error = np.sqrt(of_variance) / np.where(std > 0.0, 2.0 * std, np.inf)
        predictive = expected = information = None
        if self._entropy is not None:
            of_the_mean = entropy_of(mean)
            # Entropy is concave, so only rounding can make the difference negative.
            of_passes = np.minimum(np.maximum(self._entropy / self._draws, 0.0), of_the_mean)
            predictive, expected = _array(of_the_mean), _array(of_passes)
            information = _array(of_the_mean - of_passes)
        quantiles = samples = None
        if self._samples is not None:
            if self._options.return_samples:
                samples = _by_passes(self._samples)
            if self._options.quantiles:
                self._samples.sort(axis=1)
                quantiles = quantiles_of(self._samples, self._options.quantiles)
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
            noise_samples=None if self._noise_samples is None else _by_passes(self._noise_samples),
        )


def _array(x: NDArray[Any]) -> FloatArray:
    return np.ascontiguousarray(x, np.float32)


def _by_rows(x: NDArray[Any]) -> FloatArray:
    """[outputs, rows] as a float32 array [rows, outputs]."""
    return np.ascontiguousarray(x.T, np.float32)


def _by_passes(x: FloatArray) -> FloatArray:
    """[outputs, passes, rows] as [passes, rows, outputs], never a view: samples are put in order later."""
    return x.transpose(1, 2, 0).copy()


def quantiles_of(ordered: FloatArray, quantiles: Sequence[float]) -> FloatArray:
    """Of sorted passes, interpolated linearly (type 7 of Hyndman & Fan, 1996), [quantiles, rows, outputs]."""
    places = np.asarray(quantiles) * (ordered.shape[1] - 1)
    below, above = np.floor(places).astype(np.intp), np.ceil(places).astype(np.intp)
    share = (places - below)[None, :, None]
    values = ordered[:, below] * (1.0 - share) + ordered[:, above] * share
    return _array(values.transpose(1, 2, 0))
