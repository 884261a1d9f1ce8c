"""What a server answers, as plain values."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

FloatArray: TypeAlias = NDArray[np.float32]

Features: TypeAlias = Any
"""Anything numpy can read as [rows, features], or a frame (pandas, polars, pyarrow), whose columns are
matched by name."""

Masks = Literal["stratified", "independent"]
VersionState = Literal["unspecified", "loading", "serving", "failed", "unloaded"]
ColumnKind = Literal["unspecified", "number", "category"]
Task = Literal["unspecified", "regression", "binary", "multiclass"]


@dataclass(frozen=True, slots=True)
class Column:
    """What one input column of a model holds.

    Attributes
    ----------
    kind : {"number", "category"}
    categories : tuple of str
        Their names; a category travels as its index here.
    accepts_missing : bool
        Whether a value may be missing.
    """

    kind: ColumnKind = "number"
    categories: tuple[str, ...] = ()
    accepts_missing: bool = False


@dataclass(frozen=True, slots=True)
class ModelInfo:
    """One version of one model, as the server serves it.

    Attributes
    ----------
    name, version : str
        The version is a positive integer in decimal.
    is_default : bool
        Whether this version answers a request that names none.
    task : {"regression", "binary", "multiclass"}
    feature_names : tuple of str
        The input columns, in order.
    output_names : tuple of str
        Target names for regression, class labels for classifiers: the columns of ``mean``.
    drop_rates : tuple of float
        The drop rate p (the probability that a unit is zeroed) of each Dropout node, in the order in
        which they are applied.
    monte_carlo_unavailable : str or None
        Why the model can't answer with error bars; None where it can.
    predicts_noise : bool
        Whether answers carry an aleatoric variance.
    provider : str
        The ONNX Runtime execution provider of deterministic mode.
    columns : tuple of Column
        What each feature holds; empty where all are numbers, and none may be missing.
    calibrated : bool
        Whether predictions may be asked for an interval.
    """

    name: str
    version: str
    is_default: bool
    task: Task
    feature_names: tuple[str, ...]
    output_names: tuple[str, ...]
    drop_rates: tuple[float, ...]
    monte_carlo_unavailable: str | None
    predicts_noise: bool
    provider: str
    columns: tuple[Column, ...] = ()
    calibrated: bool = False


@dataclass(frozen=True, slots=True)
class VersionStatus:
    """One version of one model in the server's repository, served or not.

    Attributes
    ----------
    name, version : str
        The version is a positive integer in decimal.
    state : {"loading", "serving", "failed", "unloaded"}
        failed: it should be served, and could not be loaded; unloaded: it is not to be served.
    reason : str
        Why it failed; told to administrators only.
    is_default : bool
        Whether this version answers a request that names none.
    """

    name: str
    version: str
    state: VersionState
    reason: str
    is_default: bool


@dataclass(frozen=True, slots=True)
class Timings:
    """Where the server spent its time, in seconds; summed where the rows were split over several calls."""

    queue_seconds: float = 0.0
    compute_seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class Prediction:
    """A point prediction, or one with error bars.

    ``outputs`` are the targets in their own units for regression, the class probabilities for
    classifiers (two columns for binary ones). Arrays are float32, writable and the caller's own.
    Fields that don't apply are None.

    Attributes
    ----------
    mean : ndarray [rows, outputs]
        The output; in Monte Carlo mode its mean over the passes.
    model, version, request_id : str
        Which version of which model answered, and the request's id.
    passes : int
        Passes computed, of the row that took most; 0 for a deterministic prediction.
    variance : ndarray [rows, outputs]
        Variance of the output over the passes: the epistemic part, in squared output units.
    standard_error : ndarray [rows, outputs]
        Of ``mean`` as an estimate of the infinite-pass mean, in output units. None for a single pass,
        which can't tell.
    std_standard_error : ndarray [rows, outputs]
        Of ``std``, likewise.
    row_passes : ndarray of int64 [rows]
        Passes each row took, where a tolerance was given.
    aleatoric_variance : ndarray [rows, outputs]
        The variance of the noise that the model predicts, averaged over the passes in Monte Carlo
        mode. Heteroscedastic models only.
    predictive_entropy, expected_entropy, mutual_information : ndarray [rows]
        In nats; classifiers only. mutual information = predictive - expected.
    quantiles : ndarray [quantiles, rows, outputs]
        Of the outputs over the passes, in the order in which they were asked for.
    samples : ndarray [passes, rows, outputs]
        Every pass's output. Each pass is one function: its rows are drawn jointly.
    interval_lower, interval_upper : ndarray [rows, outputs]
        Where the target lies with the coverage asked for, in the targets' units; regression only.
    prediction_set : ndarray [rows, classes]
        1 for the classes that the true one is among with the coverage asked for, else 0; classifiers only.
    timings : Timings
        Where the server spent its time.
    """

    mean: FloatArray
    model: str = ""
    version: str = ""
    request_id: str = ""
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
    interval_lower: FloatArray | None = None
    interval_upper: FloatArray | None = None
    prediction_set: FloatArray | None = None
    timings: Timings = Timings()

    @property
    def std(self) -> FloatArray | None:
        """Standard deviation over the passes, [rows, outputs]; None for a deterministic prediction."""
        return None if self.variance is None else np.sqrt(self.variance)

    @property
    def predictive_variance(self) -> FloatArray | None:
        """variance + aleatoric variance (law of total variance), [rows, outputs].

        Whichever of the two there is where the other is not; None where there is neither.
        """
        if self.variance is None or self.aleatoric_variance is None:
            return self.aleatoric_variance if self.variance is None else self.variance
        return self.variance + self.aleatoric_variance
