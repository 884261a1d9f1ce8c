"""Tables that no one tuned for: settings chosen automatically, no dropout, and scikit-learn's models."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from benchmarks.uncertainty.artifacts import fit, opened
from benchmarks.uncertainty.effort import Effort
from benchmarks.uncertainty.figures import Figures
from benchmarks.uncertainty.rivals import RIVALS
from benchmarks.uncertainty.settings import choose
from dropserve_models.evaluation.metrics import gaussian_log_density, log_probability, mixture_log_density
from dropserve_models.model import Model
from dropserve_models.training.arrays import table_from_arrays
from dropserve_models.training.config import TrainingConfig
from dropserve_models.training.crossvalidate import make_folds, summarise
from dropserve_models.training.sources import read_table
from dropserve_models.training.split import Split
from dropserve_models.training.table import Table
from dropserve_models.training.task import Goal, recognise

Scores = NDArray[np.float64]
"""Log-likelihood a row, of every fold."""


def measure(name: str, read: Callable[[Path], Table], figures: Figures, data: Path, effort: Effort) -> None:
    """Cross-validate all models on the same folds; settings come from the first fold's training rows."""
    table = read(data / "tabular")
    goal = recognise(table)
    splits = [Split(*part) for part in make_folds(goal, effort.folds, 1, np.random.default_rng(0))]
    figures.say(f"\n{name}: {table.rows} rows, {table.features.shape[1]} features, {goal.task}")
    chosen = choose(figures, table, goal, splits, effort)
    epochs = {} if effort.epochs is None else {"epochs": effort.epochs}
    plain = TrainingConfig.from_mapping({"hidden_drop": 0.0} | epochs)
    ours = _scores(table, goal, splits, chosen, effort.passes)
    others = {"no dropout": _scores(table, goal, splits, [plain] * len(splits), 0)}
    for rival, log_likelihoods in RIVALS.items():
        others[rival] = np.array([log_likelihoods(table, goal, split).mean() for split in splits])
    figures.add(f"{name}, chosen", "log-likelihood", ours.tolist(), "nats", None, _error(ours))
    for other, scores in others.items():
        figures.add(f"{name}, {other}", "log-likelihood", scores.tolist(), "nats", None, _error(scores))
        gain = ours - scores
        figures.add(f"{name}, {other}", "chosen is better by", gain.tolist(), "nats", None, _error(gain))


def _error(values: Scores) -> float:
    return summarise(values[None]).standard_error


def _scores(
    table: Table, goal: Goal, splits: Sequence[Split], configs: Sequence[TrainingConfig], passes: int
) -> Scores:
    models = opened(fit(table, goal, splits, configs))
    scores = [
        _log_likelihoods(model, table, goal, split.validation, passes)
        for model, split in zip(models, splits, strict=True)
    ]
    return np.array([one.mean() for one in scores])


def _log_likelihoods(
    model: Model, table: Table, goal: Goal, rows: NDArray[np.intp], passes: int
) -> NDArray[np.float64]:
    """Of each row; of a deterministic prediction where there are no passes."""
    features, truth = table.features[rows], goal.values[rows]
    if goal.is_classification:
        answer = model.predict(features, passes=passes, seed=0) if passes else model.predict(features)
        return log_probability(truth, answer.mean)
    if not passes:
        answer = model.predict(features)
        assert answer.aleatoric_variance is not None
        return gaussian_log_density(truth, answer.mean, answer.aleatoric_variance)
    answer = model.predict(features, passes=passes, seed=0, return_samples=True)
    assert answer.samples is not None
    assert answer.noise_samples is not None
    return mixture_log_density(truth, answer.samples, answer.noise_samples)


def _headerless(file: str, folder: Path) -> Table:
    return read_table(str(folder / file), ("-1",), header=False)


def _abalone(folder: Path) -> Table:
    """Sex, the first column, as three columns of 0 and 1."""
    cells = np.loadtxt(folder / "abalone.csv", dtype=str, delimiter=",")
    sexes = np.unique(cells[:, 0])
    X = np.hstack([cells[:, :1] == sexes, cells[:, 1:-1].astype(np.float64)])
    names = (*(f"sex_{sex}" for sex in sexes), *(f"x_{number + 1}" for number in range(7)))
    return table_from_arrays(X, cells[:, -1:].astype(np.float64), names, ("rings",))


_READERS: dict[str, Callable[[Path], Table]] = {
    "pima": partial(_headerless, "pima-indians-diabetes.csv"),
    "ionosphere": partial(_headerless, "ionosphere.csv"),
    "banknote": partial(_headerless, "banknote_authentication.csv"),
    "abalone": _abalone,
    "winequality-white": partial(_headerless, "winequality-white.csv"),
}

CASES = {name: partial(measure, name, read) for name, read in _READERS.items()}
