"""Tables that no one tuned for: settings chosen automatically, no dropout, and scikit-learn's models."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from benchmarks.uncertainty.artifacts import fit, opened
from benchmarks.uncertainty.coverage import Cover, add_covers, cover
from benchmarks.uncertainty.effort import Effort
from benchmarks.uncertainty.figures import Figures
from benchmarks.uncertainty.rivals import RIVALS
from benchmarks.uncertainty.settings import choose
from dropserve_models.evaluation.metrics import gaussian_log_density, log_probability, mixture_log_density
from dropserve_models.model import Model
from dropserve_models.prediction import Prediction
from dropserve_models.training.arrays import table_from_arrays
from dropserve_models.training.config import TrainingConfig
from dropserve_models.training.crossvalidate import make_folds, summarise
from dropserve_models.training.sources import read_table
from dropserve_models.training.split import Split
from dropserve_models.training.table import Table
from dropserve_models.training.task import Goal, recognise

Scores = NDArray[np.float64]
"""Log-likelihood a row, of every fold."""


@dataclass(frozen=True, slots=True)
class Judged:
    """A model of ours on the rows that its fold left out.

    Attributes
    ----------
    log_likelihood : float
        A row.
    cover : Cover
    """

    log_likelihood: float
    cover: Cover


def measure(name: str, read: Callable[[Path], Table], figures: Figures, data: Path, effort: Effort) -> None:
    """Cross-validate all models on the same folds; settings come from the first fold's training rows."""
    table = read(data / "tabular")
    goal = recognise(table)
    splits = [Split(*part) for part in make_folds(goal, effort.folds, 1, np.random.default_rng(0))]
    figures.say(f"\n{name}: {table.rows} rows, {table.features.shape[1]} features, {goal.task}")
    chosen = choose(figures, table, goal, splits, effort)
    epochs = {} if effort.epochs is None else {"epochs": effort.epochs}
    plain = TrainingConfig.from_mapping({"hidden_drop": 0.0} | epochs)
    judged = _judged(table, goal, splits, chosen, effort.passes)
    ours = _scores(judged)
    others = {"no dropout": _scores(_judged(table, goal, splits, [plain] * len(splits), 0))}
    for rival, log_likelihoods in RIVALS.items():
        others[rival] = np.array([log_likelihoods(table, goal, split).mean() for split in splits])
    figures.add(f"{name}, chosen", "log-likelihood", ours.tolist(), "nats", None, _error(ours))
    add_covers(figures, f"{name}, chosen", [one.cover for one in judged], classifier=goal.is_classification)
    for other, scores in others.items():
        figures.add(f"{name}, {other}", "log-likelihood", scores.tolist(), "nats", None, _error(scores))
        gain = ours - scores
        figures.add(f"{name}, {other}", "chosen is better by", gain.tolist(), "nats", None, _error(gain))


def _error(values: Scores) -> float:
    return summarise(values[None]).standard_error


def _scores(judged: Sequence[Judged]) -> Scores:
    return np.array([one.log_likelihood for one in judged])


def _judged(
    table: Table, goal: Goal, splits: Sequence[Split], configs: Sequence[TrainingConfig], passes: int
) -> list[Judged]:
    models = opened(fit(table, goal, splits, configs))
    return [
        _judge(model, table, goal, split.validation, passes)
        for model, split in zip(models, splits, strict=True)
    ]


def _judge(model: Model, table: Table, goal: Goal, rows: NDArray[np.intp], passes: int) -> Judged:
    """Of a deterministic prediction where there are no passes."""
    features, truth = table.features[rows], goal.values[rows]
    if not passes:
        answer = model.predict(features)
    elif goal.is_classification:
        answer = model.predict(features, passes=passes, seed=0)
    else:
        answer = model.predict(features, passes=passes, seed=0, return_samples=True)
    log_likelihoods = _log_likelihoods(answer, goal, truth)
    return Judged(float(log_likelihoods.mean()), cover(model, answer, truth))


def _log_likelihoods(answer: Prediction, goal: Goal, truth: NDArray[np.generic]) -> NDArray[np.float64]:
    """Of each row."""
    if goal.is_classification:
        return log_probability(truth, answer.mean)
    if answer.samples is None:
        assert answer.aleatoric_variance is not None
        return gaussian_log_density(truth, answer.mean, answer.aleatoric_variance)
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
