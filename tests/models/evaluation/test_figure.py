"""Standard errors against the bootstrap that they stand for."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray

from dropserve_models.evaluation import metrics
from dropserve_models.evaluation.figure import (
    Figure,
    ause_figure,
    calibration_figure,
    mean_figure,
    missing,
    order_figure,
    r2_figure,
    rmse_figure,
)

Rows = NDArray[np.intp]

RANDOM = np.random.default_rng(0)
N = 400
Y = RANDOM.normal(size=N)
SPREAD = RANDOM.uniform(0.2, 1.5, N)
MEAN = Y + SPREAD * RANDOM.normal(size=N)
ERROR = np.abs(Y - MEAN)
POSITIVE = RANDOM.uniform(size=N) < 0.3
SCORE = RANDOM.normal(size=N) + POSITIVE
CLASSES = RANDOM.integers(0, 3, N)
PROBABILITIES = RANDOM.dirichlet(np.ones(3), N)
PROBABILITIES[np.arange(N), CLASSES] += 1.0
PROBABILITIES /= PROBABILITIES.sum(axis=1, keepdims=True)

FIGURES: dict[str, tuple[Figure, Callable[[Rows], float | None]]] = {
    "mean": (mean_figure(ERROR), lambda rows: float(ERROR[rows].mean())),
    "rmse": (rmse_figure(Y, MEAN), lambda rows: metrics.rmse(Y[rows], MEAN[rows])),
    "r2": (r2_figure(Y, MEAN), lambda rows: metrics.r2(Y[rows], MEAN[rows])),
    "auroc": (
        order_figure(metrics.placements(POSITIVE, SCORE), ""),
        lambda rows: metrics.auroc(POSITIVE[rows], SCORE[rows]),
    ),
    "auc": (
        order_figure(metrics.auc_placements(CLASSES, PROBABILITIES), ""),
        lambda rows: metrics.auc(CLASSES[rows], PROBABILITIES[rows]),
    ),
    "ece": (
        calibration_figure(CLASSES, PROBABILITIES),
        lambda rows: metrics.expected_calibration_error(CLASSES[rows], PROBABILITIES[rows]),
    ),
    "ause": (ause_figure(ERROR, SPREAD), lambda rows: metrics.ause(ERROR[rows], SPREAD[rows])),
}
# The gaps of bins change sign in resamples of an ECE; groups of rows are a rough jackknife.
WITHIN = {"ece": 0.35, "ause": 0.35}


@pytest.mark.parametrize("name", FIGURES)
def test_values_and_standard_errors(name: str) -> None:
    figure, recompute = FIGURES[name]
    assert figure.value == pytest.approx(recompute(np.arange(N)))
    random = np.random.default_rng(1)
    resampled = [recompute(random.integers(0, N, N)) for _ in range(400)]
    expected = float(np.std([value for value in resampled if value is not None]))
    assert figure.standard_error == pytest.approx(expected, rel=WITHIN.get(name, 0.15))


@pytest.mark.parametrize("name", [name for name in FIGURES if name != "ause"])
def test_a_figure_is_the_mean_of_its_contributions(name: str) -> None:
    figure, _ = FIGURES[name]
    assert figure.contributions.mean() == pytest.approx(figure.value)


def test_a_difference_is_of_the_same_rows() -> None:
    """What is hard for both models does not blur which is better."""
    ours, theirs = rmse_figure(Y, MEAN), rmse_figure(Y, MEAN + 0.2)
    difference = ours.minus(theirs)
    assert difference is not None
    assert difference.value == pytest.approx(metrics.rmse(Y, MEAN) - metrics.rmse(Y, MEAN + 0.2))
    random = np.random.default_rng(1)
    resampled = [
        metrics.rmse(Y[rows], MEAN[rows]) - metrics.rmse(Y[rows], MEAN[rows] + 0.2)
        for rows in (random.integers(0, N, N) for _ in range(400))
    ]
    assert difference.standard_error == pytest.approx(np.std(resampled), rel=0.15)
    assert (ours.standard_error or 0.0) > 2.0 * (difference.standard_error or 1.0)


def test_what_is_not_defined() -> None:
    nothing = missing("no reason")
    assert (nothing.value, nothing.standard_error, nothing.note) == (None, None, "no reason")
    assert nothing.minus(mean_figure([1.0])) is None
    assert r2_figure(np.ones(3), np.zeros(3)).note == "all of the targets are alike"
    assert ause_figure(np.zeros(3), np.arange(3.0)).note == "no row has an error"
    assert mean_figure([1.0]).standard_error is None
    assert rmse_figure(Y, Y) == Figure(0.0)
    assert rmse_figure(Y, Y).standard_error == 0.0
