"""How good answers are: plain figures on held-out rows."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

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
    right = probabilities[np.arange(len(classes)), classes].astype(np.float64)
    return {
        "accuracy": float((probabilities.argmax(axis=1) == classes).mean()),
        "log_loss": float(-np.log(np.maximum(right, np.finfo(np.float32).tiny)).mean()),
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
        error = mean[:, index] - truth
        result[f"rmse{suffix}"] = math.sqrt(np.square(error).mean())
        result[f"mae{suffix}"] = float(np.abs(error).mean())
        spread = np.square(truth - truth.mean()).sum()
        if spread > 0:  # R2 is not defined on rows that are all alike
            result[f"r2{suffix}"] = float(1.0 - np.square(error).sum() / spread)
        if noise_variance is not None:
            variance = noise_variance[:, index].astype(np.float64)
            terms = np.square(error) / variance + np.log(2 * np.pi * variance)
            result[f"log_likelihood{suffix}"] = float(-0.5 * terms.mean())
    return result
