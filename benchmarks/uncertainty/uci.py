"""Gal & Ghahramani's experiments (ICML 2016, table 1) on their own twenty splits of UCI tables."""

from __future__ import annotations

import time
from functools import partial
from pathlib import Path

import numpy as np

from benchmarks.uncertainty.artifacts import fit, opened
from benchmarks.uncertainty.coverage import add_covers, cover
from benchmarks.uncertainty.effort import Effort
from benchmarks.uncertainty.figures import Figures
from benchmarks.uncertainty.settings import choose
from dropserve_models.evaluation.metrics import mixture_log_density, rmse
from dropserve_models.training.arrays import table_from_arrays
from dropserve_models.training.split import Split
from dropserve_models.training.table import Table
from dropserve_models.training.task import recognise

SPLITS = 20

FOLDERS = {
    "boston": "bostonHousing",
    "concrete": "concrete",
    "energy": "energy",
    "wine": "wine-quality-red",
}

CLEAN, BEST = "MC dropout 2018", "best of any method"
PUBLISHED = {
    "log-likelihood": {
        "boston": {CLEAN: -2.402, BEST: -2.34},
        "concrete": {CLEAN: -2.937, BEST: -2.82},
        "energy": {CLEAN: -1.212, BEST: -0.53},
        "wine": {CLEAN: -0.928, BEST: -0.89},
    },
    "RMSE": {
        "boston": {CLEAN: 2.904, BEST: 2.65},
        "concrete": {CLEAN: 4.826, BEST: 4.15},
        "energy": {CLEAN: 0.539, BEST: 0.42},
        "wine": {CLEAN: 0.622, BEST: 0.60},
    },
}


def read_splits(folder: Path) -> tuple[Table, list[Split]]:
    """A table and its twenty splits into training and test rows, in the repository's format."""
    values = np.loadtxt(folder / "data.txt")
    X = values[:, np.loadtxt(folder / "index_features.txt", dtype=int)]
    y = values[:, int(np.loadtxt(folder / "index_target.txt"))]
    splits = [
        Split(
            np.sort(np.loadtxt(folder / f"index_train_{number}.txt", dtype=int)),
            np.sort(np.loadtxt(folder / f"index_test_{number}.txt", dtype=int)),
        )
        for number in range(SPLITS)
    ]
    names = tuple(f"x_{number + 1}" for number in range(X.shape[1]))
    return table_from_arrays(X, y[:, None], names, ("y",)), splits


def measure(name: str, figures: Figures, data: Path, effort: Effort) -> None:
    """Search, fit and judge one table."""
    table, splits = read_splits(data / "uci_splits" / FOLDERS[name])
    splits = splits[: effort.splits]
    goal = recognise(table, "regression")
    figures.say(f"\n{name}: {table.rows} rows, {table.features.shape[1]} features, {len(splits)} splits")
    configs = choose(figures, table, goal, splits, effort)
    likelihoods, errors, covers = [], [], []
    started = time.perf_counter()
    learned = fit(table, goal, splits, configs)
    seconds = time.perf_counter() - started
    for number, model in enumerate(opened(learned)):
        rows = splits[number].validation
        y = goal.values[rows].astype(np.float64)
        bars = model.predict(table.features[rows], passes=effort.passes, seed=number, return_samples=True)
        assert bars.samples is not None
        assert bars.noise_samples is not None
        likelihoods.append(float(mixture_log_density(y, bars.samples, bars.noise_samples).mean()))
        errors.append(float(rmse(y, bars.mean)))
        covers.append(cover(model, bars, goal.values[rows]))
    figures.add(name, "log-likelihood", likelihoods, "nats", PUBLISHED["log-likelihood"][name])
    figures.add(name, "RMSE", errors, "", PUBLISHED["RMSE"][name])
    add_covers(figures, name, covers, classifier=False)
    figures.add(name, f"time of {len(splits)} fits", [seconds], "s")


CASES = {name: partial(measure, name) for name in FOLDERS}
