"""The result of a prediction, and the options of a Monte Carlo one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from dropserve_models.columns import Column

FloatArray: TypeAlias = NDArray[np.float32]
Masks = Literal["stratified", "independent"]
Task = Literal["regression", "binary", "multiclass"]

DEFAULT_PASSES = 50
MAX_QUANTILES = 64
MAX_PASSES = 1_000_000
DEFAULT_MEMORY_BYTES = 256 * 2**20


@dataclass(frozen=True, slots=True)
class MonteCarloOptions:
    """How to run Monte Carlo dropout.

    Attributes
    ----------
    passes : int
        Stochastic forward passes, at least 1.
    seed : int or None
        0 <= seed < 2**64: fixes the masks. None: masks drawn at random. Two small requests may be given the
        same ones, with a probability of at most 1/64, but never two of one `run_together`.
    quantiles : tuple of float
        Quantiles of the outputs over the passes to return, each within [0, 1].
    return_samples : bool
        Whether to return every pass's output, and the noise variance it predicts where the model has one.
    masks : {"stratified", "independent"}
        How the masks of the passes relate to each other. Independent masks are the textbook's estimator;
        stratified ones need fewer passes for the same accuracy, and the last dropout is then integrated
        (unless quantiles or samples are asked for).
    mean_tolerance, std_tolerance : float or None
        Stop at fewer passes, row by row, once the standard error of the mean (of the standard deviation)
        is safely within this share of the row's standard deviation, for every output.
    """

    passes: int = DEFAULT_PASSES
    seed: int | None = None
    quantiles: tuple[float, ...] = ()
    return_samples: bool = False
    masks: Masks = "stratified"
    mean_tolerance: float | None = None
    std_tolerance: float | None = None

    @property
    def keeps_passes(self) -> bool:
        """Whether every pass's output is held until the last one is there."""
        return self.return_samples or bool(self.quantiles)

    @property
    def integrate(self) -> bool:
        """Whether the last dropout is integrated rather than sampled."""
        return self.masks == "stratified" and not self.keeps_passes

    @property
    def adaptive(self) -> bool:
        """Whether rows may stop before `passes`."""
        return self.mean_tolerance is not None or self.std_tolerance is not None


@dataclass(frozen=True, slots=True)
class ModelInfo:
    """What a model is, as far as its graph and manifest tell.

    Attributes
    ----------
    name, version : str, int
        From the folder: ``REPOSITORY/NAME/VERSION``.
    task : {"regression", "binary", "multiclass"}
    feature_names : tuple of str
        The input columns, in order.
    output_names : tuple of str
        Target names for regression, class labels for classifiers; the columns of ``mean``.
    drop_rates : tuple of float
        The drop rate p of each Dropout node, in order of application.
    predicts_noise : bool
        Whether the model predicts the noise variance (heteroscedastic regression).
    provider : str
        The ONNX Runtime execution provider of deterministic mode.
    columns : tuple of Column
        What each feature holds; empty where all are numbers, and none may be missing.
    calibrated : bool
        Whether predictions may be asked for an interval.
    """

    name: str
    version: int
    task: Task
    feature_names: tuple[str, ...]
    output_names: tuple[str, ...]
    drop_rates: tuple[float, ...]
    predicts_noise: bool
    provider: str
    columns: tuple[Column, ...] = ()
    calibrated: bool = False


@dataclass(frozen=True, slots=True)
class Prediction:
    """A point prediction, or one with error bars.

    ``outputs`` are the targets in their own units for regression, the class probabilities for
    classifiers (two columns for binary ones). Fields that don't apply are None.

    Attributes
    ----------
    mean : ndarray [rows, outputs]
        The output; in Monte Carlo mode its mean over the passes.
    passes : int
        Passes computed (of the row that took most); 0 for a deterministic prediction.
    variance : ndarray [rows, outputs]
        Variance of the output over the passes: the epistemic part, in squared output units.
        0 for a single pass.
    standard_error : ndarray [rows, outputs]
        Of ``mean`` as an estimate of the infinite-pass mean, in output units. None for a single pass,
        which can't tell.
    std_standard_error : ndarray [rows, outputs]
        Of ``std``, likewise.
    row_passes : ndarray of int [rows]
        Passes each row took; adaptive requests only.
    aleatoric_variance : ndarray [rows, outputs]
        Mean over the passes of the noise variance the model predicts; in deterministic mode the one
        it predicts in eval mode. Heteroscedastic models only.
    predictive_entropy, expected_entropy, mutual_information : ndarray [rows]
        In nats; classifiers only. mutual information = predictive - expected.
    quantiles : ndarray [quantiles, rows, outputs]
        Of the outputs over the passes.
    samples : ndarray [passes, rows, outputs]
        Every pass's output.
    noise_samples : ndarray [passes, rows, outputs]
        The noise variance that every pass predicts: with `samples`, of heteroscedastic models.
    interval_lower, interval_upper : ndarray [rows, outputs]
        Where the target lies with the coverage asked for; regression only.
    prediction_set : ndarray [rows, classes]
        1 for the classes that the true one is among with the coverage asked for, else 0; classifiers only.
    """

    mean: FloatArray
    passes: int = 0
    variance: FloatArray | None = None
    standard_error: FloatArray | None = None
    std_standard_error: FloatArray | None = None
    row_passes: NDArray[np.int64] | None = None
    aleatoric_variance: FloatArray | None = None
    predictive_entropy: FloatArray | None = None
    expected_entropy: FloatArray | None = None
    mutual_information: FloatArray | None = None
    quantiles: FloatArray | None = None
    samples: FloatArray | None = None
    noise_samples: FloatArray | None = None
    interval_lower: FloatArray | None = None
    interval_upper: FloatArray | None = None
    prediction_set: FloatArray | None = None

    @property
    def std(self) -> FloatArray | None:
        """Standard deviation over the passes, [rows, outputs]; None for a deterministic prediction."""
        return None if self.variance is None else np.sqrt(self.variance)

    @property
    def predictive_variance(self) -> FloatArray | None:
        """variance + aleatoric variance (law of total variance), [rows, outputs]."""
        if self.variance is None:
            return self.aleatoric_variance
        if self.aleatoric_variance is None:
            return self.variance
        return self.variance + self.aleatoric_variance


Features: TypeAlias = Sequence[Any] | NDArray[Any] | Any
"""Anything numpy can read as [rows, features]; a pandas or polars frame's columns are matched by name."""


_ROW_AXES = {"quantiles": 1, "samples": 1, "noise_samples": 1}  # of the other fields, rows are the first axis


def concatenate(
    parts: Sequence[Prediction], rows: int | None = None, order: NDArray[np.intp] | None = None
) -> Prediction:
    """Predictions of consecutive rows as one, cut to the first `rows`, or put in another order."""
    if len(parts) == 1 and order is None and rows in (None, len(parts[0].mean)):
        return parts[0]
    chosen = slice(0, rows) if order is None else order
    joined: dict[str, Any] = {}
    for name, axis in _arrays(parts[0]):
        values = [getattr(part, name) for part in parts]
        value = values[0] if len(values) == 1 else np.concatenate(values, axis)
        joined[name] = np.ascontiguousarray(value[:, chosen] if axis else value[chosen])
    return Prediction(**joined, passes=max(part.passes for part in parts))


def take_rows(prediction: Prediction, start: int, stop: int) -> Prediction:
    """The prediction of some consecutive rows, without a copy where rows are the first axis."""
    taken: dict[str, Any] = {}
    for name, axis in _arrays(prediction):
        value = getattr(prediction, name)
        taken[name] = np.ascontiguousarray(value[:, start:stop]) if axis else value[start:stop]
    return Prediction(**taken, passes=prediction.passes)


def _arrays(prediction: Prediction) -> list[tuple[str, int]]:
    """The arrays a prediction has, by name, with the axis that counts its rows."""
    names = [field.name for field in fields(Prediction) if field.name != "passes"]
    return [(name, _ROW_AXES.get(name, 0)) for name in names if getattr(prediction, name) is not None]
