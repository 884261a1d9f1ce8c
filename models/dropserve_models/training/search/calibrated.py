"""Fitted pipelines as they would be published: calibrated, each by rows that others have not learned from.

A setting that is too sure of itself loses much log-likelihood, and most of that is won back by one factor
when the model is published. Judged without it, settings are chosen for how little they need it.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from statistics import fmean

import numpy as np
import torch

from dropserve_models.evaluation.metrics import gaussian_log_density
from dropserve_models.training.batches import Index, padded
from dropserve_models.training.losses import GaussianNoise
from dropserve_models.training.pipeline import Pipeline
from dropserve_models.training.pipelines import Fitted
from dropserve_models.training.search.passes import passes_of
from dropserve_models.training.table import Doubles, Floats, Table
from dropserve_models.training.task import Classes, Goal
from dropserve_models.training.temperature import classification_log_likelihood, fit_factor

PASSES = 32
MOST_ROWS = 1000
"""Of a fold: a factor is one number, and needs no more."""


def calibrated(
    fitted: Sequence[Fitted],
    rows: Sequence[Index],
    groups: Sequence[Hashable],
    table: Table,
    goal: Goal,
    seed: np.random.SeedSequence,
) -> list[Fitted]:
    """Each pipeline with the temperature, or the noise scale, that suits the others of its group.

    As `training.tuning` fits them, to both modes' mean log-likelihood. A pipeline that is alone in its group
    gets the factor that suits its own rows.

    Parameters
    ----------
    rows : sequence of ndarray
        For each pipeline, those it has not learned from.
    groups : sequence
        Of each pipeline: the same for those of one setting.
    """
    found = list(fitted)
    if not goal.is_classification and not isinstance(fitted[0].pipeline.objective, GaussianNoise):
        return found
    for group in dict.fromkeys(groups):
        places = [place for place, other in enumerate(groups) if other == group]
        some = [rows[place][:: -(-len(rows[place]) // MOST_ROWS)] for place in places]
        answers = _answers([fitted[place] for place in places], some, table, goal, seed)
        for number, place in enumerate(places):
            others = answers[:number] + answers[number + 1 :] or answers
            with np.errstate(over="ignore", invalid="ignore"):  # of rows far from all others
                pipeline = _with_factor(fitted[place].pipeline, others)
            found[place] = replace(fitted[place], pipeline=pipeline)
    return found


@dataclass(frozen=True, slots=True)
class _Answers:
    """Of one pipeline on its rows; of a regression in the spread of its training rows.

    Attributes
    ----------
    truth : ndarray [rows] of classes, or [rows, targets]
    single, several : ndarray [1 or passes, rows, outputs]
        The network's, in eval mode and of the passes.
    """

    truth: Classes | Doubles
    single: Floats
    several: Floats


def _answers(
    fitted: Sequence[Fitted], rows: Sequence[Index], table: Table, goal: Goal, seed: np.random.SeedSequence
) -> list[_Answers]:
    index, _ = padded(rows)
    outputs = torch.stack(list(passes_of(fitted, index, table, PASSES, seed))).numpy()
    found = []
    for member, (one, own) in enumerate(zip(fitted, rows, strict=True)):
        pipeline = one.pipeline
        x = torch.from_numpy(pipeline.encoding.apply(table.features[own])).unsqueeze(0)
        truth, scaling = goal.values[own], pipeline.target_scaling
        if scaling is not None:
            truth = ((truth - scaling.mean) / scaling.std).astype(np.float64)
        found.append(_Answers(truth, pipeline.network.evaluate(x).numpy(), outputs[:, member, : len(own)]))
    return found


def _with_factor(pipeline: Pipeline, answers: Sequence[_Answers]) -> Pipeline:
    truth = np.concatenate([one.truth for one in answers])
    modes = [
        np.concatenate([one.single for one in answers], axis=1),
        np.concatenate([one.several for one in answers], axis=1),
    ]
    if pipeline.target_scaling is None:
        return pipeline.tempered(
            fit_factor(
                lambda factor: (
                    len(truth)
                    * fmean(classification_log_likelihood(logits, truth, factor) for logits in modes)
                )
            )
        )
    assert isinstance(pipeline.objective, GaussianNoise)
    moments = []
    for outputs in modes:
        mean, log_variance = (
            part.double().numpy() for part in pipeline.objective.split(torch.tensor(outputs))
        )
        moments.append((mean.mean(axis=0), mean.var(axis=0), np.exp(log_variance).mean(axis=0)))

    def likelihood(target: int, factor: float) -> float:
        return fmean(
            float(
                gaussian_log_density(
                    truth[:, target], mean[:, target], (variance + factor * noise)[:, target]
                ).sum()
            )
            for mean, variance, noise in moments
        )

    scales = [fit_factor(partial(likelihood, target)) for target in range(truth.shape[1])]
    return replace(pipeline, noise_scale=np.array(scales, np.float32))
