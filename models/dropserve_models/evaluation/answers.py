"""Asking a model for all rows, in both modes, through the engine that serves."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from dropserve_models.evaluation.calibrated import Calibrated, judge
from dropserve_models.evaluation.metrics import (
    ensemble_crps,
    gaussian_crps,
    gaussian_log_density,
    mixture_crps,
    mixture_log_density,
)
from dropserve_models.evaluation.metrics.gaussian import Doubles
from dropserve_models.model import Model
from dropserve_models.prediction import FloatArray, MonteCarloOptions, Prediction, concatenate

Mode = Literal["deterministic", "monte_carlo"]
OnRows = Callable[[int], None]
"""Told of every number of rows that was done."""

CRPS_PASSES = 200
"""Passes that the CRPS of a mixture is computed from, at most: its time grows with their square."""

_SAMPLES = 2**22  # outputs of all passes at a time
_ROWS = 2**16  # rows at a time


@dataclass(frozen=True, slots=True)
class Answers:
    """What a model answered in one mode. What it can't tell is None.

    Attributes
    ----------
    mean : ndarray [rows, outputs]
        Class probabilities for classifiers.
    total : ndarray [rows, outputs], or [rows] for classifiers
        All the uncertainty there is: the predictive standard deviation, or the entropy of the mean
        probabilities, in nats.
    epistemic : ndarray, likewise
        What the passes disagree about: their standard deviation, or the mutual information. Monte Carlo only.
    log_density, gaussian_log_density, crps : ndarray [rows, outputs]
        Of the targets, where they were given; regression only. `log_density` is Gal's for Monte Carlo: that
        of the mixture of all passes' Gaussians; `gaussian_log_density` that of one Gaussian of the same
        moments.
    calibrated : Calibrated or None
        How intervals, or prediction sets, did, where the truth was given and coverages were asked for.
    """

    mode: Mode
    mean: Doubles
    total: Doubles | None
    epistemic: Doubles | None = None
    log_density: Doubles | None = None
    gaussian_log_density: Doubles | None = None
    crps: Doubles | None = None
    calibrated: Calibrated | None = None


def ask(
    model: Model,
    features: FloatArray,
    options: MonteCarloOptions | None,
    truth: Doubles | None = None,
    coverages: Sequence[float] = (),
    on_rows: OnRows = lambda rows: None,
) -> Answers:
    """Predict rows in one mode.

    Parameters
    ----------
    features : ndarray [rows, features]
    options : MonteCarloOptions or None
        With a seed, so that all blocks of rows share their masks. None: deterministic.
    truth : ndarray [rows, outputs], optional
        The targets of a regression, to be scored; the numbers of the classes, [rows, 1].
    coverages : sequence of float
        Of calibrated intervals, or prediction sets, to be held against the truth, where it is given.
    """
    parts = []
    for start in range(0, len(features), _ROWS):
        block = features[start : start + _ROWS]
        parts.append(model.run(block, options))
        on_rows(len(block))
    prediction = concatenate(parts)
    mean = prediction.mean.astype(np.float64)
    mode: Mode = "deterministic" if options is None else "monte_carlo"
    calibrated = judge(model, prediction, truth, coverages) if truth is not None and coverages else None
    if model.info.task != "regression":
        total = -(mean * np.log(np.maximum(mean, np.finfo(np.float32).tiny))).sum(axis=1)
        return Answers(mode, mean, total, _wide(prediction.mutual_information), calibrated=calibrated)
    variance = _wide(prediction.predictive_variance)
    total = None if variance is None else np.sqrt(variance)
    answers = Answers(mode, mean, total, _wide(prediction.std))
    if truth is None:
        return answers
    noise = prediction.aleatoric_variance is not None and variance is not None
    gaussian = gaussian_log_density(truth, mean, variance) if noise and variance is not None else None
    if options is None:
        crps = gaussian_crps(truth, mean, 0.0 if variance is None else variance)
        return Answers(mode, mean, total, None, gaussian, gaussian, crps, calibrated)
    density, crps = _score_passes(model, features, options, truth, on_rows)
    return Answers(mode, mean, total, answers.epistemic, density, gaussian, crps, calibrated)


def _score_passes(
    model: Model, features: FloatArray, options: MonteCarloOptions, truth: Doubles, on_rows: OnRows
) -> tuple[Doubles | None, Doubles]:
    """Log density and CRPS of what the single passes predict together."""
    sampled = MonteCarloOptions(options.passes, options.seed, return_samples=True)
    densities, scores = [], []
    step = max(1, _SAMPLES // (options.passes * len(model.info.output_names)))
    for start in range(0, len(features), step):
        rows = slice(start, start + step)
        answer: Prediction = model.run(features[rows], sampled)
        means, noise, y = answer.samples, answer.noise_samples, truth[rows]
        assert means is not None
        if noise is None:
            scores.append(ensemble_crps(y, means))
        else:
            densities.append(mixture_log_density(y, means, noise))
            scores.append(mixture_crps(y, means[:CRPS_PASSES], noise[:CRPS_PASSES]))
        on_rows(len(y))
    return (np.concatenate(densities) if densities else None), np.concatenate(scores)


def _wide(values: FloatArray | None) -> Doubles | None:
    return None if values is None else values.astype(np.float64)
