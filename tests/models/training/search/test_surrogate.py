from __future__ import annotations

import numpy as np
import pytest

from dropserve_models.training.search.board import Standing
from dropserve_models.training.search.surrogate import Surrogate


def truth(x: np.ndarray) -> np.ndarray:
    distance: np.ndarray = np.square(x - 0.6).sum(axis=1)
    return -distance


def test_it_finds_the_best_under_noise_larger_than_the_differences() -> None:
    random = np.random.default_rng(0)
    worst_by_score, worst_by_expectation = 0.0, 0.0
    for _ in range(5):
        x = random.random((60, 2))
        noisy = truth(x) + random.normal(0.0, 0.1, 60)
        expected, _ = Surrogate(x, Standing(noisy, np.full(60, 0.01))).posterior(x)
        worst_by_score += truth(x).max() - truth(x)[noisy.argmax()]
        worst_by_expectation += truth(x).max() - truth(x)[expected.argmax()]
    assert worst_by_expectation < worst_by_score / 2
    assert worst_by_expectation / 5 < 0.02


def test_it_reproduces_scores_without_noise_and_is_less_sure_far_from_them() -> None:
    x = np.random.default_rng(1).random((30, 2)) / 2
    found = Surrogate(x, Standing(truth(x), np.full(30, 1e-8)))
    mean, near = found.posterior(x)
    assert mean == pytest.approx(truth(x), abs=1e-3)
    _, far = found.posterior(np.array([[1.0, 1.0]]))
    assert far[0] > 10 * near.max()


def test_what_is_promising_is_near_the_optimum_and_never_twice_the_same() -> None:
    random = np.random.default_rng(2)
    x, pool = random.random((40, 2)), random.random((300, 2))
    found = Surrogate(x, Standing(truth(x), np.full(40, 1e-4)))
    places = found.promising(pool, 6, random)
    assert len(set(places)) == len(places) <= 6
    assert truth(pool[places]).mean() > np.quantile(truth(pool), 0.9)


@pytest.mark.parametrize("count", [1, 2, 4])
def test_a_few_trials_are_enough(count: int) -> None:
    x = np.linspace(0.0, 1.0, count)[:, None]
    mean, _ = Surrogate(x, Standing(x[:, 0], np.full(count, 0.01))).posterior(x)
    assert list(np.argsort(mean)) == list(range(count)) or count == 1
