"""The factor that is fitted beside the weights: against direct searches, and where it must not run away."""

from __future__ import annotations

from math import exp, log, pi

import numpy as np
import pytest

from dropserve_models.training.temperature import (
    PRIOR_SPREAD,
    classification_log_likelihood,
    fit_factor,
)


def drawn(rows: int, temperature: float, passes: int = 1, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Logits [passes, rows, 3] that are too sure by this factor, and classes."""
    random = np.random.default_rng(seed)
    truth = 2.0 * random.normal(size=(rows, 3))
    probabilities = np.exp(truth) / np.exp(truth).sum(axis=1, keepdims=True)
    classes = (random.random((rows, 1)) > probabilities.cumsum(axis=1)).sum(axis=1)
    noise = 0.0 if passes == 1 else 0.5 * random.normal(size=(passes, rows, 3))
    return (temperature * (truth + noise)).reshape(passes, rows, 3), classes


def directly(logits: np.ndarray, classes: np.ndarray, temperature: float) -> float:
    """As the definition has it, row by row."""
    total = 0.0
    for row, label in enumerate(classes):
        passes = [np.exp(one / temperature) / np.exp(one / temperature).sum() for one in logits[:, row]]
        total += log(np.mean([one[label] for one in passes]))
    return total / len(classes)


@pytest.mark.parametrize("passes", [1, 5])
@pytest.mark.parametrize("temperature", [0.4, 1.0, 3.0])
def test_the_likelihood_is_that_of_the_definition(passes: int, temperature: float) -> None:
    logits, classes = drawn(30, 1.0, passes)
    found = classification_log_likelihood(logits, classes, temperature)
    assert found == pytest.approx(directly(logits, classes, temperature), rel=1e-12)


def test_logits_of_any_size_are_fine() -> None:
    logits = np.array([[[1e4, 0.0], [-1e4, 0.0]]])
    assert classification_log_likelihood(logits, np.array([0, 0])) == pytest.approx(-5000.0)


@pytest.mark.parametrize("passes", [1, 5])
@pytest.mark.parametrize("truth", [0.5, 1.0, 2.5])
def test_the_factor_is_the_best_of_a_grid(truth: float, passes: int) -> None:
    logits, classes = drawn(400, truth, passes)

    def log_likelihood(factor: float) -> float:
        return len(classes) * classification_log_likelihood(logits, classes, factor)

    grid = np.exp(np.linspace(log(0.1), log(10), 2001))
    posterior = [log_likelihood(t) - 0.5 * (log(t) / PRIOR_SPREAD) ** 2 for t in grid]
    assert fit_factor(log_likelihood) == pytest.approx(grid[int(np.argmax(posterior))], rel=0.003)


@pytest.mark.parametrize("truth", [0.5, 2.5])
def test_many_rows_override_the_prior(truth: float) -> None:
    logits, classes = drawn(20_000, truth)
    found = fit_factor(lambda t: len(classes) * classification_log_likelihood(logits, classes, t))
    assert found == pytest.approx(truth, rel=0.05)


def test_a_few_rows_that_are_all_right_do_not_send_the_temperature_to_zero() -> None:
    logits, classes = np.array([[[2.0, 0.0]] * 30]), np.zeros(30, np.int64)
    found = fit_factor(lambda t: len(classes) * classification_log_likelihood(logits, classes, t))
    assert 0.4 < found < 1.0


def test_the_scale_of_a_variance_in_closed_form() -> None:
    # n rows of squared error s: log-likelihood -n (log(2 pi f) + s / f) / 2; without the prior f = s.
    n, s = 50, 3.0
    found = fit_factor(lambda f: -0.5 * n * (log(2 * pi * f) + s / f))
    # With it: -n (1 - s / f) / 2 = log(f) / spread^2.
    assert -0.5 * n * (1 - s / found) == pytest.approx(log(found) / PRIOR_SPREAD**2, rel=1e-3)
    assert 2.4 < found < 3.0


def test_where_nothing_is_better_the_factor_is_one() -> None:
    assert fit_factor(lambda factor: 0.0) == 1.0
    assert fit_factor(lambda factor: -100.0 * log(factor) ** 2) == 1.0


def test_the_factor_is_bounded() -> None:
    assert fit_factor(lambda factor: 1e6 * factor) == pytest.approx(100.0, rel=0.01)
    assert exp(0.0) <= fit_factor(lambda factor: 1e6 * min(factor, 3.0)) < 100.0
