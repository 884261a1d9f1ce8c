"""Sonar by repeated 10-fold cross-validation: recipes of a much-read article, and settings of our own."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from statistics import fmean

import numpy as np
from numpy.typing import NDArray

from benchmarks.training.recipes import BASELINE, DROPPED, EPOCHS, SONAR
from benchmarks.uncertainty.artifacts import fit, opened
from benchmarks.uncertainty.coverage import Cover, add_covers, cover
from benchmarks.uncertainty.effort import Effort
from benchmarks.uncertainty.figures import Figures
from benchmarks.uncertainty.settings import choose
from dropserve_models.training.config import TrainingConfig
from dropserve_models.training.crossvalidate import make_folds, summarise
from dropserve_models.training.sources import read_table
from dropserve_models.training.split import Split
from dropserve_models.training.table import Table
from dropserve_models.training.task import Goal, recognise

FOLDS = 10
PASSES = 200

ARTICLE = {"baseline": 86.04, "visible": 83.52, "hidden": 83.59}
"""Accuracy in per cent, one 10-fold cross-validation each."""


def measure(figures: Figures, data: Path, effort: Effort) -> None:
    """Each recipe, and the settings chosen, on the same folds."""
    table = read_table(str(data / "tabular" / "sonar.csv"), ("-1",), header=False)
    goal = recognise(table)
    parts = make_folds(goal, FOLDS, effort.repeats, np.random.default_rng(0))
    splits = [Split(*part) for part in parts]
    figures.say(f"\nsonar: {table.rows} rows, {effort.repeats} repeats of {FOLDS}-fold cross-validation")
    epochs = {"epochs": effort.epochs or EPOCHS}
    recipes = {
        "baseline": [TrainingConfig.from_mapping(BASELINE | epochs)] * len(splits),
        **{
            name: [TrainingConfig.from_mapping(SONAR | rates | epochs)] * len(splits)
            for name, rates in DROPPED.items()
        },
        "chosen": choose(figures, table, goal, splits, effort),
    }
    found = {name: _accuracies(table, goal, splits, configs) for name, configs in recipes.items()}
    for name, values in found.items():
        accuracies = values.reshape(effort.repeats, FOLDS)
        published = {"article, one run": ARTICLE[name]} if name in ARTICLE else {}
        repeats = accuracies.mean(axis=1).tolist()
        error = summarise(accuracies).standard_error
        figures.add(f"sonar, {name}", "accuracy", repeats, "%", published, error)
        if name == "baseline":
            continue
        difference = (values - found["baseline"]).reshape(effort.repeats, FOLDS)
        error = summarise(difference).standard_error
        repeats = difference.mean(axis=1).tolist()
        figures.add(f"sonar, {name}", "less the baseline", repeats, "points", standard_error=error)
    # Of the first repeat, whose folds are all rows: each calibration takes twenty more fits.
    covers = _covers(table, goal, splits[:FOLDS], recipes["chosen"][:FOLDS])
    add_covers(figures, "sonar, chosen", covers, classifier=True)


def _accuracies(
    table: Table, goal: Goal, splits: Sequence[Split], configs: Sequence[TrainingConfig]
) -> NDArray[np.float64]:
    """Of each split's model on the rows left out, in per cent, of the mean probabilities."""
    # A temperature would hardly change which class is the most probable, and take twenty more fits for each.
    configs = [config.model_copy(update={"calibration": "none"}) for config in configs]
    values = []
    for model, split in zip(opened(fit(table, goal, splits, configs)), splits, strict=True):
        features = table.features[split.validation]
        drops = bool(model.info.drop_rates)
        answer = model.predict(features, passes=PASSES, seed=0) if drops else model.predict(features)
        right = answer.mean.argmax(axis=1) == goal.values[split.validation]
        values.append(100.0 * fmean(right.tolist()))
    return np.array(values)


def _covers(
    table: Table, goal: Goal, splits: Sequence[Split], configs: Sequence[TrainingConfig]
) -> list[Cover]:
    return [
        cover(
            model,
            model.predict(table.features[split.validation], passes=PASSES, seed=0),
            goal.values[split.validation],
        )
        for model, split in zip(opened(fit(table, goal, splits, configs)), splits, strict=True)
    ]


CASES = {"sonar": measure}
