from __future__ import annotations

import numpy as np
import pytest
from sklearn import metrics

from dropserve_models.training.metrics import classification_metrics, regression_metrics

RANDOM = np.random.default_rng(0)


def test_classification() -> None:
    exact = RANDOM.dirichlet(np.ones(3), 50)
    probabilities = exact.astype(np.float32)
    classes = RANDOM.integers(0, 3, 50)
    found = classification_metrics(probabilities, classes)
    assert found == pytest.approx(
        {
            "accuracy": metrics.accuracy_score(classes, probabilities.argmax(axis=1)),
            "log_loss": metrics.log_loss(classes, exact, labels=[0, 1, 2]),
            "majority_accuracy": np.unique(classes, return_counts=True)[1].max() / 50,
        },
        rel=1e-5,
    )


def test_a_probability_of_zero_costs_much_and_not_infinity() -> None:
    found = classification_metrics(np.array([[1, 0]], np.float32), np.array([1]))
    assert 80 < found["log_loss"] < 100


def test_regression() -> None:
    mean = RANDOM.normal(size=(40, 1)).astype(np.float32)
    variance = RANDOM.uniform(0.5, 2, (40, 1)).astype(np.float32)
    y = RANDOM.normal(size=(40, 1))
    density = np.exp(-((y - mean) ** 2) / (2 * variance)) / np.sqrt(2 * np.pi * variance)
    assert regression_metrics(mean, variance, y, ("y",)) == pytest.approx(
        {
            "rmse": metrics.root_mean_squared_error(y, mean),
            "mae": metrics.mean_absolute_error(y, mean),
            "r2": metrics.r2_score(y, mean),
            "log_likelihood": np.log(density).mean(),
        },
        rel=1e-5,
    )


def test_several_targets_have_figures_of_their_own() -> None:
    mean, y = RANDOM.normal(size=(40, 2)).astype(np.float32), RANDOM.normal(size=(40, 2))
    found = regression_metrics(mean, None, y, ("a", "b"))
    assert sorted(found) == ["mae/a", "mae/b", "r2/a", "r2/b", "rmse/a", "rmse/b"]
    assert found["rmse/b"] == pytest.approx(metrics.root_mean_squared_error(y[:, 1], mean[:, 1]), rel=1e-5)


def test_r2_is_left_out_where_it_is_not_defined() -> None:
    assert "r2" not in regression_metrics(np.zeros((3, 1), np.float32), None, np.ones((3, 1)), ("y",))
