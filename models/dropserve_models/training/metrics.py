"""The figures that training reports of held-out rows."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from dropserve_models.evaluation.metrics import correct, gaussian_log_density, log_probability, mae, r2, rmse
from dropserve_models.training.table import Doubles, Floats
from dropserve_models.training.task import Classes, Goal


def metrics_of(answers: Mapping[str, Floats], goal: Goal, rows: NDArray[np.intp]) -> dict[str, float]:
    """How good a model's answers, by output name, are on these rows of the table."""
    truth = goal.values[rows]
    if goal.is_classification:
        return classification_metrics(answers["probabilities"], truth.astype(np.int64))
    return regression_metrics(
        answers["mean"], answers.get("noise_variance"), truth.astype(np.float64), goal.output_names
    )


def classification_metrics(probabilities: Floats, classes: Classes) -> dict[str, float]:
    """Accuracy, log loss (nats), and the accuracy of always answering the most frequent class.

    Parameters
    ----------
    probabilities : ndarray [rows, classes]
    classes : ndarray [rows]
        The true ones, by number.
    """
    return {
        "accuracy": float(correct(classes, probabilities).mean()),
        "log_loss": float(-log_probability(classes, probabilities).mean()),
        "majority_accuracy": float(np.bincount(classes).max() / len(classes)),
    }


def regression_metrics(
    mean: Floats, noise_variance: Floats | None, targets: Doubles, names: tuple[str, ...]
) -> dict[str, float]:
    """RMSE, MAE, R2 and, given the noise, the Gaussian log-likelihood a row; in the targets' own units.

    Parameters
    ----------
    mean, noise_variance, targets : ndarray [rows, targets]
    names : tuple of str
        Of the targets. Where there are several, each has its own figures, as ``rmse/NAME``.
    """
    result = {}
    for index, name in enumerate(names):
        suffix = "" if len(names) == 1 else f"/{name}"
        truth = targets[:, index]
        result[f"rmse{suffix}"] = rmse(truth, mean[:, index])
        result[f"mae{suffix}"] = mae(truth, mean[:, index])
        if (explained := r2(truth, mean[:, index])) is not None:
            result[f"r2{suffix}"] = explained
        if noise_variance is not None:
            density = gaussian_log_density(truth, mean[:, index], noise_variance[:, index])
            result[f"log_likelihood{suffix}"] = float(density.mean())
    return result
