"""A loaded model: the one object that evaluation, the server and plain scripts ask for predictions."""

from __future__ import annotations

import threading
from collections.abc import Hashable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, cast

import numpy as np

from dropserve_models.conformal import Intervals
from dropserve_models.errors import ArtifactError, InputError, ModelsError, MonteCarloUnavailable
from dropserve_models.features import read_features
from dropserve_models.inference.blueprint import Blueprint, draw_up
from dropserve_models.inference.deterministic import Device
from dropserve_models.inference.whole import Whole
from dropserve_models.options import check_options, integer, number, numbers
from dropserve_models.prediction import (
    DEFAULT_MEMORY_BYTES,
    Features,
    FloatArray,
    Masks,
    ModelInfo,
    MonteCarloOptions,
    Prediction,
)

if TYPE_CHECKING:
    from dropserve_models.inference.device.choice import AnyEngine

_CAUSE_CHARACTERS = 300


class Model:
    """A loaded artifact. Thread-safe: any thread may call any method at any time.

    Attributes
    ----------
    info : ModelInfo
        What the model is.
    """

    def __init__(
        self, blueprint: Blueprint, memory_bytes: int = DEFAULT_MEMORY_BYTES, *, measures: bool = False
    ) -> None:
        self.info: ModelInfo = blueprint.info
        self._blueprint = blueprint
        self._memory_bytes = memory_bytes
        self._measures = measures
        self._classifier = self.info.task != "regression"
        self._intervals = Intervals(self.info.name, blueprint.calibration, classifier=self._classifier)
        self._lock = threading.Lock()
        self._engine: AnyEngine | None = None
        self._unavailable = blueprint.monte_carlo_unavailable

    @property
    def monte_carlo_unavailable(self) -> str | None:
        """Why Monte Carlo requests are refused, or None where they are (as far as is known) answered."""
        return self._unavailable

    @property
    def monte_carlo_prepared(self) -> bool:
        """Whether a Monte Carlo request would find everything prepared."""
        return self._engine is not None

    def prepare_monte_carlo(self) -> None:
        """Import torch, build, check and measure the engine. Idempotent; slow the first time.

        Raises
        ------
        MonteCarloUnavailable
            The model can't be run with dropout on, or the engine differs from ONNX Runtime.
        """
        self._prepared()

    @property
    def monte_carlo_device(self) -> str | None:
        """Where Monte Carlo requests are computed, "cpu" or "cuda:0"; None before the first is prepared."""
        return None if self._engine is None else str(self._engine.device)

    def predict(
        self,
        X: Features,
        *,
        passes: int | None = None,
        seed: int | None = None,
        quantiles: Sequence[float] = (),
        return_samples: bool = False,
        masks: Masks = "stratified",
        mean_tolerance: float | None = None,
        std_tolerance: float | None = None,
        interval: float | None = None,
    ) -> Prediction:
        """Predict rows; `passes` asks for Monte Carlo dropout.

        Parameters
        ----------
        X : array-like or data frame, [rows, features]
            A frame's columns are matched by name. Categories are given by name in a frame or an array of
            objects, by code in an array of numbers.
        passes : int, optional
            Stochastic forward passes. None: one deterministic pass.
        seed, quantiles, return_samples, masks, mean_tolerance, std_tolerance
            See `MonteCarloOptions`; only with `passes`.
        interval : float, optional
            Coverage, within (0, 1), of the interval (regression) or the prediction set (classifiers) to
            return.

        Raises
        ------
        InputError
            Features or options are wrong; `field` names which.
        MonteCarloUnavailable
            `passes` was given and the model can't be run with dropout on.
        MemoryLimitError
            The samples asked for don't fit into the model's memory limit.
        IntervalUnavailable
            `interval` was given and the model is not calibrated.
        """
        options = None
        levels = numbers("quantiles", quantiles)
        if passes is not None:
            passes = integer("passes", passes)
            seed = None if seed is None else integer("seed", seed)
            tolerances = [
                None if given is None else number(field, given)
                for field, given in (("mean_tolerance", mean_tolerance), ("std_tolerance", std_tolerance))
            ]
            options = MonteCarloOptions(passes, seed, levels, return_samples, masks, *tolerances)
        elif levels or return_samples or (seed, mean_tolerance, std_tolerance) != (None, None, None):
            raise InputError(
                "passes", "seed, quantiles, return_samples and tolerances need passes, e.g. passes=100"
            )
        if interval is not None:
            interval = number("interval", interval)
            self.check_interval(interval, monte_carlo=options is not None)
        prediction = self.run(read_features(X, self.info.feature_names, self.info.columns), options)
        return prediction if interval is None else self.add_interval(prediction, interval)

    def run(self, features: FloatArray, monte_carlo: MonteCarloOptions | None = None) -> Prediction:
        """Predict features [rows, features] that are known to be float32, C-contiguous and finite.

        NaN stands for missing values, in columns that accept them.

        What a server calls; the options are checked. Raises what `predict` raises.
        """
        if monte_carlo is None:
            with np.errstate(over="ignore", invalid="ignore"):  # what overflows is refused
                return _finite(self._deterministic(features))
        *_, prediction = self.steps(features, monte_carlo)
        return cast(Prediction, prediction)

    def steps(
        self, features: FloatArray, monte_carlo: MonteCarloOptions, whole: Whole | None = None
    ) -> Iterator[Prediction | None]:
        """Predict likewise, with a pause (None) now and then between passes; the prediction comes last.

        What a server calls that has others to answer meanwhile. The answer is the same. Any thread may take
        the next step. `whole` is given with each part of a request without a seed that is cut.
        """
        check_options(monte_carlo)
        steps = self._prepared().steps(features, monte_carlo, whole)
        prediction = None
        while prediction is None:
            with np.errstate(over="ignore", invalid="ignore"):
                prediction = next(steps)
            yield prediction if prediction is None else _finite(prediction)

    def check_interval(self, coverage: float, *, monte_carlo: bool) -> None:
        """Raise InputError or IntervalUnavailable where `add_interval` is bound to."""
        self._intervals.check(coverage, monte_carlo=monte_carlo)

    def add_interval(self, prediction: Prediction, coverage: float) -> Prediction:
        """A prediction of this model with its calibrated interval, or its prediction set.

        Raises
        ------
        InputError
            The coverage is not within (0, 1), or beyond what the calibration rows can tell.
        IntervalUnavailable
            The model is not calibrated, or not in the prediction's mode.
        """
        return self._intervals.add(prediction, coverage)

    def together(self, rows: int, options: MonteCarloOptions) -> Hashable | None:
        """What Monte Carlo requests must have in common to be computed together; None: they can't be.

        Call it after `prepare_monte_carlo`.
        """
        return self._prepared().together(rows, options)

    def run_together(self, features: Sequence[FloatArray], options: MonteCarloOptions) -> list[Prediction]:
        """Several requests' rows as `run` would predict them, in one go; see `together`.

        An answer that is not finite is left to the caller to find, so that one request can't fail others.
        """
        check_options(options)
        return self._prepared().run_together(features, options)

    def _deterministic(self, features: FloatArray) -> Prediction:
        blueprint = self._blueprint
        mean, *noise = blueprint.session.run(features, blueprint.heads)
        mean = mean.reshape(len(features), -1)
        if self._classifier and mean.shape[1] == 1:
            mean = np.hstack([1.0 - mean, mean])
        return Prediction(mean, aleatoric_variance=noise[0].reshape(mean.shape) if noise else None)

    def _prepared(self) -> AnyEngine:
        if self._engine is None:
            with self._lock:
                if self._engine is None:
                    self._engine = self._build()
        return self._engine

    def _build(self) -> AnyEngine:
        from dropserve_models.inference.preparation import prepared_engine

        program = self._blueprint.program
        if program is None or self._unavailable is not None:
            raise MonteCarloUnavailable(self._refusal(cast(str, self._unavailable)))
        try:
            return prepared_engine(self._blueprint, program, self._memory_bytes, measures=self._measures)
        except MonteCarloUnavailable as error:
            self._unavailable = str(error)
            raise MonteCarloUnavailable(self._refusal(self._unavailable)) from None

    def _refusal(self, reason: str) -> str:
        return f"model {self.info.name!r} can't answer with error bars: {reason}"


def _finite(prediction: Prediction) -> Prediction:
    """The prediction, unless it is none."""
    for values in (prediction.mean, prediction.variance, prediction.aleatoric_variance):
        if values is not None and not (finite := np.isfinite(values)).all():
            raise InputError(
                "inputs",
                f"row {int(np.argmin(finite.all(axis=1)))}: the model's answer is not a finite number; "
                "the features are too far from those it was trained on",
            )
    return prediction


def load(
    folder: str | Path,
    *,
    device: Device = "auto",
    threads: int | None = None,
    memory_bytes: int = DEFAULT_MEMORY_BYTES,
    max_bytes: int | None = None,
) -> Model:
    """Load and verify an artifact, ``REPOSITORY/NAME/VERSION``.

    Parameters
    ----------
    device : {"auto", "cpu", "cuda"}
        Where ONNX Runtime computes, and Monte Carlo with it. auto: CUDA where it is there, else the CPU.
    threads : int, optional
        Of ONNX Runtime. None: as many as the cores this process may use.
    memory_bytes : int
        What a Monte Carlo request may take beyond its input and answer.
    max_bytes : int, optional
        The most that the model may have on disk. None: what an ONNX file can, 2 GiB.

    Raises
    ------
    ArtifactError
        The artifact is missing, damaged or refused.
    DeviceError
        `device` is "cuda" and ONNX Runtime can't use it.
    """
    from dropserve_models.artifact import MAX_MODEL_BYTES, open_artifact

    artifact = open_artifact(folder, max_bytes or MAX_MODEL_BYTES)
    try:
        blueprint = draw_up(artifact, device, threads)
    except ModelsError:
        raise
    except Exception as error:
        # The graph is whatever somebody wrote: what nobody foresaw in it is its fault, told in one line.
        cause = " ".join(f"{type(error).__name__}: {error}".split())
        raise ArtifactError(
            f"{artifact.folder}: model.onnx is malformed: {cause[:_CAUSE_CHARACTERS]}"
        ) from error
    return Model(blueprint, memory_bytes, measures=True)
