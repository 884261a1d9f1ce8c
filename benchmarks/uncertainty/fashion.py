"""Fashion-MNIST by the network of textbooks: 784-256-256-10, drop rates .2 and .5, ten epochs."""

from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from benchmarks.uncertainty.artifacts import fit, opened
from benchmarks.uncertainty.effort import Effort
from benchmarks.uncertainty.figures import Figures
from dropserve_models.evaluation.metrics import correct, log_probability
from dropserve_models.training.arrays import table_from_arrays
from dropserve_models.training.config import TrainingConfig
from dropserve_models.training.split import Split
from dropserve_models.training.task import recognise

EPOCHS = 10
ROWS = 2000
"""Of --quick, to learn from."""

RECIPE = TrainingConfig(
    hidden=(256, 256),
    hidden_drop=(0.2, 0.5),
    epochs=EPOCHS,
    batch_size=128,
    learning_rate=0.002,
    validation=0.0,
    calibration="none",
)
"""The rest as by default; the learning rate is lower than that for small tables."""

PUBLISHED = {"textbooks, from": 0.85, "to": 0.88}


def measure(figures: Figures, data: Path, effort: Effort) -> None:
    """Fit all training images, judge by all test images."""
    folder = data / "fashion_mnist"
    X, y = _read(folder, "train")
    test_X, test_y = _read(folder, "t10k")
    if effort.epochs is not None:
        X, y = X[:ROWS], y[:ROWS]
    rows = len(X)
    names = tuple(f"pixel_{number}" for number in range(X.shape[1]))
    table = table_from_arrays(
        np.concatenate([X, test_X]), np.concatenate([y, test_y])[:, None], names, ("class",)
    )
    goal = recognise(table)
    figures.say(f"\nfashion: {rows:,} images to learn from, {len(test_X):,} to be judged by, {EPOCHS} epochs")
    split = Split(np.arange(rows), np.arange(rows, table.rows))
    (model,) = opened(fit(table, goal, [split], [RECIPE]))
    features, truth = table.features[split.validation], goal.values[split.validation].astype(np.int64)
    for name, answer in (
        ("without Monte Carlo", model.predict(features)),
        ("Monte Carlo, 100 passes", model.predict(features, passes=100, seed=0)),
    ):
        right = correct(truth, answer.mean)
        case = f"fashion, {name}"
        error = float(right.std() / np.sqrt(len(right)))
        figures.add(case, "accuracy", [float(right.mean())], "", PUBLISHED, error)
        figures.add(case, "log-likelihood", [float(log_probability(truth, answer.mean).mean())], "nats")


def _read(folder: Path, part: str) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Images [rows, pixels], 0 to 1, and their classes, from the official IDX files."""
    with gzip.open(folder / f"{part}-images-idx3-ubyte.gz") as file:
        images = np.frombuffer(file.read(), np.uint8, offset=16)
    with gzip.open(folder / f"{part}-labels-idx1-ubyte.gz") as file:
        labels = np.frombuffer(file.read(), np.uint8, offset=8)
    return images.reshape(len(labels), -1).astype(np.float32) / 255.0, labels.astype(np.int64)


CASES = {"fashion": measure}
