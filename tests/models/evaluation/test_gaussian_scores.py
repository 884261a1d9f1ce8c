"""Scores of Gaussians, mixtures and ensembles, against numerical integrals, brute force and SciPy."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.stats
from numpy.typing import NDArray
from scipy.integrate import quad
from scipy.special import ndtr

from dropserve_models.evaluation.metrics import (
    ensemble_crps,
    gaussian_crps,
    gaussian_interval,
    gaussian_log_density,
    mean_width,
    mixture_crps,
    mixture_log_density,
    picp,
)

RANDOM = np.random.default_rng(0)
Doubles = NDArray[np.float64]


def crps_by_quadrature(y: float, means: Doubles, variances: Doubles) -> float:
    """The definition: the integral of (F(x) - 1{x >= y})^2 over x."""

    def cdf(x: float) -> float:
        return float(np.mean(ndtr((x - means) / np.sqrt(variances))))

    below = quad(lambda x: cdf(x) ** 2, y - 60.0, y, limit=500, epsabs=1e-11)[0]
    above = quad(lambda x: (1.0 - cdf(x)) ** 2, y, y + 60.0, limit=500, epsabs=1e-11)[0]
    return float(below + above)


def test_the_density_of_a_gaussian() -> None:
    y, mean = RANDOM.normal(size=(2, 20, 3))
    variance = RANDOM.uniform(0.1, 4.0, (20, 3))
    expected = scipy.stats.norm(mean, np.sqrt(variance)).logpdf(y)
    np.testing.assert_allclose(gaussian_log_density(y, mean, variance), expected, rtol=1e-12)


def test_the_density_is_computed_in_float64() -> None:
    y = np.array([1.0])
    mean, variance = np.array([1.0 + 2**-20], np.float32), np.array([1e-14], np.float32)
    expected = -0.5 * (np.log(2 * np.pi * float(variance[0])) + 2.0**-40 / float(variance[0]))
    np.testing.assert_allclose(gaussian_log_density(y, mean, variance), expected, rtol=1e-12)


def test_gal_s_log_likelihood_is_the_density_of_the_mixture() -> None:
    y = RANDOM.normal(size=15)
    means = RANDOM.normal(size=(8, 15))
    variances = RANDOM.uniform(0.1, 2.0, (8, 15))
    density = scipy.stats.norm(means, np.sqrt(variances)).pdf(y).mean(axis=0)
    np.testing.assert_allclose(mixture_log_density(y, means, variances), np.log(density), rtol=1e-12)
    one = mixture_log_density(y, means[:1], variances[:1])
    np.testing.assert_allclose(one, gaussian_log_density(y, means[0], variances[0]), rtol=1e-12)


def test_gal_s_formula_as_his_code_has_it() -> None:
    """Homoscedastic, with the precision tau: logsumexp(-tau/2 e^2) - log T - log(2 pi)/2 + log(tau)/2."""
    y, means, tau = RANDOM.normal(size=10), RANDOM.normal(size=(6, 10)), 3.7
    squared = (y - means) ** 2
    expected = np.log(np.exp(-0.5 * tau * squared).sum(axis=0)) - np.log(6) - 0.5 * np.log(2 * np.pi / tau)
    np.testing.assert_allclose(mixture_log_density(y, means, 1.0 / tau), expected, rtol=1e-12)


def test_far_from_every_pass_the_density_does_not_underflow() -> None:
    found = mixture_log_density(np.array([1e3]), np.zeros((5, 1)), np.ones((5, 1)))
    np.testing.assert_allclose(found, -0.5e6 - 0.5 * np.log(2 * np.pi), rtol=1e-12)


@pytest.mark.parametrize("y", [-3.0, -0.4, 0.5, 2.5])
def test_crps_is_its_integral(y: float) -> None:
    means, variances = np.array([-1.0, 0.3, 2.0]), np.array([0.25, 1.0, 0.01])
    expected = crps_by_quadrature(y, means, variances)
    found = mixture_crps(np.array([y]), means[:, None], variances[:, None])
    np.testing.assert_allclose(found, expected, rtol=1e-7)
    for mean, variance in zip(means, variances, strict=True):
        single = crps_by_quadrature(y, np.array([mean]), np.array([variance]))
        np.testing.assert_allclose(gaussian_crps(y, mean, variance), single, rtol=1e-7)


def test_crps_of_the_standard_gaussian_at_its_mean() -> None:
    np.testing.assert_allclose(gaussian_crps(0.0, 0.0, 1.0), (np.sqrt(2) - 1) / np.sqrt(np.pi), rtol=1e-14)


def test_crps_of_a_point_is_the_absolute_error() -> None:
    np.testing.assert_array_equal(gaussian_crps([1.0, -2.0, 3.0], [3.0, 1.0, 3.0], 0.0), [2.0, 3.0, 0.0])


def test_crps_of_an_ensemble_is_that_of_all_pairs_and_of_a_mixture_without_spread() -> None:
    y, samples = RANDOM.normal(size=(7, 2)), RANDOM.normal(size=(9, 7, 2))
    pairs = np.abs(samples[:, None] - samples[None]).mean(axis=(0, 1))
    expected = np.abs(samples - y).mean(axis=0) - pairs / 2
    np.testing.assert_allclose(ensemble_crps(y, samples), expected, rtol=1e-12)
    np.testing.assert_allclose(mixture_crps(y, samples, 0.0), expected, rtol=1e-12)


def test_crps_of_a_mixture_of_equal_passes_is_that_of_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dropserve_models.evaluation.metrics.mixture._PAIRS", 100)  # several blocks of rows
    y, mean = RANDOM.normal(size=(2, 50))
    variance = RANDOM.uniform(0.1, 2.0, 50)
    found = mixture_crps(y, np.tile(mean, (6, 1)), np.tile(variance, (6, 1)))
    np.testing.assert_allclose(found, gaussian_crps(y, mean, variance), rtol=1e-12)


def test_intervals() -> None:
    mean, variance = RANDOM.normal(size=30), RANDOM.uniform(0.1, 4.0, 30)
    lower, upper = gaussian_interval(mean, variance, 0.9)
    expected = scipy.stats.norm(mean, np.sqrt(variance))
    np.testing.assert_allclose(lower, expected.ppf(0.05), rtol=1e-12)
    np.testing.assert_allclose(upper, expected.ppf(0.95), rtol=1e-12)
    assert mean_width(lower, upper) == pytest.approx(np.mean(expected.ppf(0.95) - expected.ppf(0.05)))
    assert picp([0.0, 1.0, 1.5, 3.0], [0.0, 0.0, 2.0, 1.0], [0.0, 1.0, 3.0, 2.0]) == 0.5
