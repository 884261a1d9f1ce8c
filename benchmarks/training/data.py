"""What is learned: made-up tables of the shapes of two well-known ones, or the real ones from a folder."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from dropserve_models.training.arrays import table_from_arrays
from dropserve_models.training.sources import read_table
from dropserve_models.training.split import Split
from dropserve_models.training.table import Table

SPLITS = 20


def sonar(folder: Path | None) -> Table:
    """208 rows, 60 features, 2 classes: `folder`/tabular/sonar.csv, or made up."""
    if folder is not None:
        return read_table(str(folder / "tabular" / "sonar.csv"), ("-1",), header=False)
    random = np.random.default_rng(0)
    # Neighbouring features move together, as bands of a spectrum do.
    bands = random.normal(size=(208, 12)).repeat(5, axis=1)
    X = bands + 0.5 * random.normal(size=(208, 60))
    signal = bands[:, 0] * bands[:, 5] + bands[:, 10] + 0.5 * bands[:, 20]
    y = signal + 0.7 * random.normal(size=208) > np.median(signal)
    return table_from_arrays(X, y[:, None], tuple(f"x_{i + 1}" for i in range(60)), ("y",))


def energy(folder: Path | None) -> tuple[Table, list[Split]]:
    """768 rows, 8 features, a number, in 20 splits of 9 to 1: `folder`/uci_splits/energy, or made up."""
    if folder is None:
        random = np.random.default_rng(0)
        X = random.uniform(-1.0, 1.0, size=(768, 8))
        y = 20.0 + 8.0 * X[:, 0] * X[:, 1] + 5.0 * np.sin(3.0 * X[:, 2]) + 3.0 * np.abs(X[:, 3])
        y += 0.3 * (1.5 + X[:, 4]) * random.normal(size=768)
        orders = [random.permutation(768) for _ in range(SPLITS)]
        parts = [(order[:691], order[691:]) for order in orders]
    else:
        source = folder / "uci_splits" / "energy"
        values = np.loadtxt(source / "data.txt")
        X = values[:, np.loadtxt(source / "index_features.txt", dtype=int)]
        y = values[:, int(np.loadtxt(source / "index_target.txt"))]
        parts = [
            (
                np.loadtxt(source / f"index_train_{k}.txt", dtype=int),
                np.loadtxt(source / f"index_test_{k}.txt", dtype=int),
            )
            for k in range(SPLITS)
        ]
    names = tuple(f"x_{i + 1}" for i in range(X.shape[1]))
    splits = [Split(np.sort(training), np.sort(test)) for training, test in parts]
    return table_from_arrays(X, y[:, None], names, ("y",)), splits
