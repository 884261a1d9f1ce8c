"""Models fitted side by side, exported, and asked for predictions as an application would."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from dropserve_models import load
from dropserve_models.model import Model
from dropserve_models.training import export
from dropserve_models.training.config import TrainingConfig
from dropserve_models.training.pipelines import Fit, fit_pipelines
from dropserve_models.training.split import Split
from dropserve_models.training.table import Table
from dropserve_models.training.task import Goal


def exported(
    table: Table, goal: Goal, splits: Sequence[Split], configs: Sequence[TrainingConfig], seed: int = 0
) -> Iterator[Model]:
    """One model for each split, in turn, which has learned from all the split's training rows.

    Where a configuration holds nothing out (`validation` 0) every epoch is run; otherwise a part of the
    training rows chooses the epoch.

    Yields
    ------
    Model
        Loaded from its artifact; to be used before the next one is asked for.
    """
    seeds = np.random.SeedSequence(seed).spawn(len(splits))
    fits = [
        Fit(_held_out(split, config, child), config, child)
        for split, config, child in zip(splits, configs, seeds, strict=True)
    ]
    for fitted in fit_pipelines(table, goal, fits, device="cpu"):
        fitted.check_converged()
        with tempfile.TemporaryDirectory() as folder:
            version = Path(folder) / "model" / "1"
            version.mkdir(parents=True)
            (version / "model.onnx").write_bytes(export.export(fitted.pipeline))
            yield load(version, device="cpu", threads=1)


def _held_out(split: Split, config: TrainingConfig, seed: np.random.SeedSequence) -> Split:
    if config.validation == 0.0:
        return Split(split.training, split.training[:0])
    order = np.random.default_rng(seed).permutation(split.training)
    count = round(config.validation * len(order))
    return Split(np.sort(order[count:]), np.sort(order[:count]))
