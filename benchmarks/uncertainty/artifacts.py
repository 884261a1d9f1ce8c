"""Models fitted side by side, calibrated, published, and asked for predictions as an application would."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from dropserve_models import load
from dropserve_models.model import Model
from dropserve_models.publishing import publish
from dropserve_models.training import export
from dropserve_models.training.calibrate import Calibrator
from dropserve_models.training.config import TrainingConfig
from dropserve_models.training.description import describe
from dropserve_models.training.pipelines import Fit, Fitted, fit_pipelines
from dropserve_models.training.randomness import derive
from dropserve_models.training.split import Split, split_rows
from dropserve_models.training.table import Table
from dropserve_models.training.task import Goal


@dataclass(frozen=True, slots=True)
class Learned:
    """A model fitted to a split's training rows, and what calibrates it on them.

    Attributes
    ----------
    fitted : Fitted
    calibrator : Calibrator
        Knows the split's training rows alone, and counts them from 0.
    chosen_by : ndarray
        Those, so counted, that no weights were learned from and the epoch was chosen by.
    """

    fitted: Fitted
    calibrator: Calibrator
    chosen_by: np.ndarray[tuple[int], np.dtype[np.intp]]


def fit(
    table: Table, goal: Goal, splits: Sequence[Split], configs: Sequence[TrainingConfig], seed: int = 0
) -> list[Learned]:
    """Learn from each split's training rows, as the trainer does.

    Where a configuration holds nothing out (`validation` 0) every epoch is run; otherwise a part of the
    training rows chooses the epoch.
    """
    seeds = np.random.SeedSequence(seed).spawn(len(splits))
    fits, calibrators, chosen_by = [], [], []
    for split, config, child in zip(splits, configs, seeds, strict=True):
        fit_seed, split_seed, calibration_seed = derive(child, 3)
        own_table, own_goal = _rows(table, goal, split)
        calibrator = Calibrator(own_table, own_goal, config, calibration_seed)
        random = np.random.default_rng(split_seed)
        part = split_rows(own_goal, config.validation, random, calibrator.rows_to_learn_from)
        rows = Split(split.training[part.training], split.training[part.validation])
        fits.append(Fit(rows, config, fit_seed))
        calibrators.append(calibrator)
        chosen_by.append(part.validation)
    fitted = fit_pipelines(table, goal, fits, device="cpu")
    return [Learned(*one) for one in zip(fitted, calibrators, chosen_by, strict=True)]


def opened(learned: Sequence[Learned]) -> Iterator[Model]:
    """Calibrate, publish and load each model in turn, as its configuration says.

    Yields
    ------
    Model
        To be used before the next one is asked for.
    """
    for one in learned:
        one.fitted.check_converged()
        calibrated = one.calibrator.calibrate(one.fitted, one.chosen_by, device="cpu")
        model_bytes = export.export(calibrated.pipeline)
        manifest = describe(calibrated.pipeline, model_bytes, calibration=calibrated.record)
        with tempfile.TemporaryDirectory() as repository:
            yield load(publish(repository, "model", model_bytes, manifest), device="cpu", threads=1)


def _rows(table: Table, goal: Goal, split: Split) -> tuple[Table, Goal]:
    """A split's training rows as a table of their own."""
    rows = split.training
    targets = tuple(replace(target, values=target.values[rows]) for target in table.targets)
    return (
        replace(table, features=table.features[rows], targets=targets),
        replace(goal, values=goal.values[rows]),
    )
