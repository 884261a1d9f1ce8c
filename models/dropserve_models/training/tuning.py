"""What is fitted beside the weights, on rows that they were not learned from, and folded into the graph."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from statistics import fmean
from typing import Self

import numpy as np

from dropserve_models.artifact import Artifact
from dropserve_models.calibration import LikelihoodRecord
from dropserve_models.conformal import standard_deviation
from dropserve_models.errors import DataError, InputError
from dropserve_models.evaluation.metrics import gaussian_log_density
from dropserve_models.inference.blueprint import draw_up
from dropserve_models.model import Model
from dropserve_models.prediction import MonteCarloOptions, Prediction, concatenate
from dropserve_models.training import export
from dropserve_models.training.description import describe
from dropserve_models.training.outlier import outlier
from dropserve_models.training.pipeline import Pipeline
from dropserve_models.training.split import Rows
from dropserve_models.training.table import Doubles, Floats, Table
from dropserve_models.training.task import Goal
from dropserve_models.training.temperature import classification_log_likelihood, fit_factor

PASSES = 100
MONTE_CARLO = MonteCarloOptions(PASSES, seed=0)
"""How the Monte Carlo answers come about that a model is calibrated by."""

TUNING_VALUES = 2**21
"""Most probabilities that a temperature is fitted to: it is one number, and needs no more."""

Likelihoods = dict[str, LikelihoodRecord]


@dataclass(frozen=True, slots=True)
class HeldOut:
    """A fitted pipeline, and rows of the table that it has not learned from."""

    pipeline: Pipeline
    rows: Rows

    def answers(self, model: Model, table: Table, options: MonteCarloOptions | None = None) -> Prediction:
        """What the model that was made of the pipeline says of the rows.

        Raises
        ------
        DataError
            An answer is not finite; it names the value to blame, if it is one.
        """
        try:
            return model.run(table.features[self.rows], options)
        except InputError as error:
            raise DataError(outlier(table, self.rows, self.pipeline.encoding) or str(error)) from error


@dataclass(frozen=True, slots=True)
class Answers:
    """What a model says of rows that it has not learned from, without Monte Carlo and, if it can, with."""

    rows: Rows
    single: Prediction
    several: Prediction | None

    @classmethod
    def of(cls, table: Table, part: HeldOut) -> Self:
        """Open the pipeline's model, and ask it. Raises what `HeldOut.answers` raises."""
        model = opened(part.pipeline)
        several = part.answers(model, table, MONTE_CARLO) if has_dropout(part.pipeline) else None
        return cls(part.rows, part.answers(model, table), several)


@dataclass(frozen=True, slots=True)
class Tuning:
    """What was fitted; None where nothing was.

    Attributes
    ----------
    temperature : float or None
        By which a classifier's logits are divided.
    noise_scale : tuple of float or None
        By which the predicted noise variance of each target is multiplied.
    noise_variance : tuple of float or None
        Of each target, where the network predicts none.
    log_likelihoods : dict
        By mode, "deterministic" and "monte_carlo".
    """

    temperature: float | None = None
    noise_scale: tuple[float, ...] | None = None
    noise_variance: tuple[float, ...] | None = None
    log_likelihoods: Likelihoods = field(default_factory=dict)

    def apply(self, pipeline: Pipeline) -> Pipeline:
        """The pipeline with temperature and noise scale in it."""
        if self.temperature is not None:
            pipeline = pipeline.tempered(self.temperature)
        if self.noise_scale is not None:
            pipeline = replace(pipeline, noise_scale=np.array(self.noise_scale, np.float32))
        return pipeline

    def apply_to(self, part: HeldOut) -> HeldOut:
        """The part with temperature and noise scale in its pipeline."""
        return replace(part, pipeline=self.apply(part.pipeline))

    def scale(self, prediction: Prediction) -> Prediction:
        """What the pipeline with the noise scale in it says where it said this without."""
        if self.noise_scale is None:
            return prediction
        assert prediction.aleatoric_variance is not None
        noise = prediction.aleatoric_variance * np.array(self.noise_scale, np.float32)
        return replace(prediction, aleatoric_variance=noise)


def tune(table: Table, goal: Goal, parts: Sequence[HeldOut]) -> tuple[Tuning, list[Answers]]:
    """Fit temperature or noise to all parts together, to the mean log-likelihood of both modes.

    One factor serves both, and what is best for the one alone may harm the other: averaged over passes,
    probabilities are less sure than those of a single one.

    Returns
    -------
    Tuning
    list of Answers
        Of the parts with it.
    """
    if goal.is_classification:
        tuning = _temperature(table, goal, parts)
        return tuning, [Answers.of(table, tuning.apply_to(part)) for part in parts]
    answers = [Answers.of(table, part) for part in parts]
    tuning = _noise(goal, answers)
    return tuning, [
        Answers(
            one.rows, tuning.scale(one.single), None if one.several is None else tuning.scale(one.several)
        )
        for one in answers
    ]


def has_dropout(pipeline: Pipeline) -> bool:
    """Whether it can answer with error bars."""
    return any(rate > 0.0 for rate in pipeline.drop_rates)


def opened(pipeline: Pipeline) -> Model:
    """The model that a server would load, without publishing it."""
    model_bytes = export.export(pipeline)
    artifact = Artifact(Path("."), "calibration", 1, model_bytes, describe(pipeline, model_bytes))
    return Model(draw_up(artifact, "cpu", None))


def _temperature(table: Table, goal: Goal, parts: Sequence[HeldOut]) -> Tuning:
    rows = sum(len(part.rows) for part in parts)
    step = max(1, -(-rows * PASSES * len(goal.output_names) // TUNING_VALUES))
    single, several, classes = [], [], []
    for part in parts:
        some, model = HeldOut(part.pipeline, part.rows[::step]), opened(part.pipeline)
        classes.append(goal.values[some.rows].astype(np.int64))
        single.append(some.answers(model, table).mean[None])
        if has_dropout(part.pipeline):
            samples = some.answers(model, table, replace(MONTE_CARLO, return_samples=True)).samples
            assert samples is not None
            several.append(samples)
    truth = np.concatenate(classes)
    answers = {"deterministic": _logits(single)}
    if several:
        answers["monte_carlo"] = _logits(several)
    temperature = fit_factor(
        lambda factor: (
            len(truth)
            * fmean(classification_log_likelihood(logits, truth, factor) for logits in answers.values())
        )
    )
    likelihoods = {
        mode: LikelihoodRecord(
            before=classification_log_likelihood(values, truth),
            after=classification_log_likelihood(values, truth, temperature),
        )
        for mode, values in answers.items()
    }
    return Tuning(temperature=temperature, log_likelihoods=likelihoods)


def _logits(probabilities: Sequence[Floats]) -> Floats:
    """Up to a constant, of probabilities [passes, rows, classes] of consecutive rows."""
    logits: Floats = np.log(np.maximum(np.concatenate(probabilities, axis=1), np.finfo(np.float32).tiny))
    return logits


def _noise(goal: Goal, parts: Sequence[Answers]) -> Tuning:
    truth = np.concatenate([goal.values[part.rows] for part in parts]).astype(np.float64)
    answers = {"deterministic": concatenate([part.single for part in parts])}
    several = [part.several for part in parts if part.several is not None]
    if several:
        answers["monte_carlo"] = concatenate(several)
    predicted = answers["deterministic"].aleatoric_variance is not None
    targets = range(truth.shape[1])
    errors = np.square(truth - answers["deterministic"].mean).mean(axis=0)
    start = np.ones(len(targets)) if predicted else np.maximum(errors, np.finfo(np.float32).tiny)

    def likelihood(target: int, factor: float) -> float:
        return len(truth) * fmean(
            _likelihood(answer, truth, start * factor, target) for answer in answers.values()
        )

    factors = [fit_factor(partial(likelihood, target)) for target in targets]
    noise = start * factors
    likelihoods = {
        mode: LikelihoodRecord(
            before=sum(_likelihood(answer, truth, start, target) for target in targets),
            after=sum(_likelihood(answer, truth, noise, target) for target in targets),
        )
        for mode, answer in answers.items()
    }
    values = tuple(noise.tolist())
    return Tuning(
        noise_scale=values if predicted else None,
        noise_variance=None if predicted else values,
        log_likelihoods=likelihoods,
    )


def _likelihood(prediction: Prediction, truth: Doubles, noise: Doubles, target: int) -> float:
    """Of one target, mean over the rows."""
    variance = _variance(prediction, noise)[:, target]
    return float(gaussian_log_density(truth[:, target], prediction.mean[:, target], variance).mean())


def _variance(prediction: Prediction, noise: Doubles) -> Doubles:
    """Of the prediction, with its noise variance scaled by `noise`, or `noise` itself where it has none."""
    aleatoric = prediction.aleatoric_variance
    if aleatoric is not None:
        prediction = replace(prediction, aleatoric_variance=(aleatoric * noise).astype(np.float32))
    return np.square(standard_deviation(prediction, noise))
