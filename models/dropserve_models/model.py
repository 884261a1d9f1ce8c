"""A loaded model: the one object that evaluation, the server and plain scripts ask for predictions."""

from __future__ import annotations

import operator
import threading
from collections.abc import Hashable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, cast

import numpy as np

from dropserve_models.errors import ArtifactError, InputError, ModelsError, MonteCarloUnavailable
from dropserve_models.features import read_features
from dropserve_models.inference.agreement import MAX_DIFFERENCE, difference
from dropserve_models.inference.blueprint import Blueprint, draw_up
from dropserve_models.inference.deterministic import Device
from dropserve_models.inference.probe import probe
from dropserve_models.prediction import (
    DEFAULT_MEMORY_BYTES,
    MAX_PASSES,
    MAX_QUANTILES,
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

    def __init__(self, blueprint: Blueprint, memory_bytes: int = DEFAULT_MEMORY_BYTES) -> None:
        self.info: ModelInfo = blueprint.info
        self._blueprint = blueprint
        self._memory_bytes = memory_bytes
        self._classifier = self.info.task != "regression"
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
        """Import torch, build the engine and check it against ONNX Runtime. Idempotent; slow the first time.

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

        Raises
        ------
        InputError
            Features or options are wrong; `field` names which.
        MonteCarloUnavailable
            `passes` was given and the model can't be run with dropout on.
        MemoryLimitError
            The samples asked for don't fit into the model's memory limit.
        """
        options = None
        levels = _numbers("quantiles", quantiles)
        if passes is not None:
            passes = _integer("passes", passes)
            seed = None if seed is None else _integer("seed", seed)
            options = MonteCarloOptions(
                passes, seed, levels, return_samples, masks, mean_tolerance, std_tolerance
            )
        elif seed is not None or levels or return_samples or mean_tolerance or std_tolerance:
            raise InputError(
                "passes", "seed, quantiles, return_samples and tolerances need passes, e.g. passes=100"
            )
        return self.run(read_features(X, self.info.feature_names, self.info.columns), options)

    def run(self, features: FloatArray, monte_carlo: MonteCarloOptions | None = None) -> Prediction:
        """Predict features [rows, features] that are known to be float32, C-contiguous and finite.

        NaN stands for missing values, in columns that accept them.

        What a server calls; the options are checked. Raises what `predict` raises.
        """
        with np.errstate(over="ignore", invalid="ignore"):  # what overflows is refused below
            if monte_carlo is None:
                prediction = self._deterministic(features)
            else:
                check_options(monte_carlo)
                prediction = self._prepared().run(features, monte_carlo)
        for values in (prediction.mean, prediction.variance, prediction.aleatoric_variance):
            if values is not None and not (finite := np.isfinite(values).all(axis=1)).all():
                raise InputError(
                    "inputs",
                    f"row {int(np.argmin(finite))}: the model's answer is not a finite number; "
                    "the features are too far from those it was trained on",
                )
        return prediction

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
        from dropserve_models.inference.device.choice import make_engine

        program = self._blueprint.program
        if program is None or self._unavailable is not None:
            raise MonteCarloUnavailable(self._refusal(cast(str, self._unavailable)))
        rows = probe(self.info)
        engine = make_engine(
            program,
            self._blueprint.prefix,
            self._classifier,
            self._memory_bytes,
            self.info.provider,
            rows,
        )
        expected = self._blueprint.session.run(rows, self._blueprint.heads)
        found = difference(engine.evaluate(rows), expected)
        if not found <= MAX_DIFFERENCE:
            self._unavailable = (
                f"with dropout off, the Monte Carlo engine differs from ONNX Runtime by {found:.2g} "
                f"of the largest output, more than {MAX_DIFFERENCE:g}"
            )
            raise MonteCarloUnavailable(self._refusal(self._unavailable))
        return engine

    def _refusal(self, reason: str) -> str:
        return f"model {self.info.name!r} can't answer with error bars: {reason}"


def _integer(field: str, value: object) -> int:
    try:
        return operator.index(value)  # type: ignore[arg-type]  # numpy's integers as well
    except TypeError:
        raise InputError(field, f"{field} is {value!r}; it must be an integer") from None


def _numbers(field: str, values: Sequence[float]) -> tuple[float, ...]:
    try:
        return tuple(float(value) for value in values)
    except (TypeError, ValueError):
        raise InputError(field, f"{field} is {values!r}; it must be a list of numbers") from None


def check_options(options: MonteCarloOptions) -> None:
    """Raise InputError where an option is out of range."""
    if not 1 <= options.passes <= MAX_PASSES:
        raise InputError("passes", f"passes is {options.passes}; it must be from 1 to {MAX_PASSES:,}")
    if options.seed is not None and not 0 <= options.seed < 2**64:
        raise InputError("seed", f"seed is {options.seed}; it must be from 0 to 2**64 - 1")
    if len(options.quantiles) > MAX_QUANTILES:
        raise InputError(
            "quantiles", f"{len(options.quantiles)} quantiles; at most {MAX_QUANTILES} are answered"
        )
    for quantile in options.quantiles:
        if not 0.0 <= quantile <= 1.0:
            raise InputError("quantiles", f"quantile {quantile:g} is not within [0, 1]")
    for field in ("mean_tolerance", "std_tolerance"):
        tolerance = getattr(options, field)
        if tolerance is not None and not 0.0 < tolerance < float("inf"):
            raise InputError(field, f"{field} is {tolerance:g}; it must be above 0, e.g. 0.1")
    if options.adaptive and (options.quantiles or options.return_samples):
        raise InputError(
            "quantiles" if options.quantiles else "return_samples",
            "rows stop at different passes under a tolerance, so quantiles and samples can't be returned",
        )
    if options.masks not in ("stratified", "independent"):
        raise InputError("masks", f"masks is {options.masks!r}; it must be 'stratified' or 'independent'")


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
    return Model(blueprint, memory_bytes)
