"""From a data source to a published version: every step of a training run, in order."""

from __future__ import annotations

import json
import platform
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import TextIO

import numpy as np

from dropserve_models import publishing
from dropserve_models.errors import ArtifactError, ConfigError
from dropserve_models.manifest import Manifest, TrainingRecord, sha256_of
from dropserve_models.training import export
from dropserve_models.training.config import TrainingConfig
from dropserve_models.training.curve import draw_learning_curve
from dropserve_models.training.fit import Epoch, History
from dropserve_models.training.metrics import classification_metrics, regression_metrics
from dropserve_models.training.pipeline import Pipeline, fit_pipeline
from dropserve_models.training.progress import Progress
from dropserve_models.training.sources import read_table
from dropserve_models.training.split import Split, split_rows
from dropserve_models.training.table import Table, listed
from dropserve_models.training.task import Goal, recognise

LEARNING_CURVE_FILE = "learning_curve.png"
METRICS_FILE = "metrics.json"


@dataclass(frozen=True, slots=True)
class Job:
    """What to train on, and where to publish it.

    Attributes
    ----------
    data : str
        A .csv, .tsv, .parquet or .npz file, or ``sklearn:NAME``.
    name : str
        Of the model.
    repository : Path
        Where its next version goes.
    targets : tuple of str
        Columns to predict, by name or by number (1 is the first, -1 the last).
    header : bool
        Whether the first line of a .csv or .tsv file names the columns.
    config : TrainingConfig
    """

    data: str
    name: str
    repository: Path
    targets: tuple[str, ...] = ()
    header: bool = True
    config: TrainingConfig = field(default_factory=TrainingConfig)


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a training run came to.

    Attributes
    ----------
    folder : Path
        The version that was published.
    metrics : dict of str to float
        Deterministic, on the validation rows, through the exported graph.
    seconds : float
        Spent in the training loop.
    """

    folder: Path
    goal: Goal
    table: Table
    split: Split
    history: History
    metrics: dict[str, float]
    seconds: float


def train(
    job: Job,
    *,
    terminal: TextIO | None = None,
    warn: Callable[[str], None] = lambda message: None,
) -> Outcome:
    """Train a model and publish it as the next version of its name.

    Parameters
    ----------
    job : Job
    terminal : text stream, optional
        Where progress is shown, if it is a terminal.
    warn : callable, optional
        Told of what is odd but no error, one line each.

    Raises
    ------
    DataError, ConfigError
        The data, an option, the model's name or the repository is wrong. Nothing was written.
    ExportError
        The exported graph disagrees with the network that was trained. Nothing was published.
    ArtifactError
        Publishing failed. Nothing was left behind.
    """
    try:
        publishing.check_publishable(job.repository, job.name)
    except ArtifactError as error:
        raise ConfigError(str(error)) from error
    table = read_table(job.data, job.targets, header=job.header)
    goal = recognise(table, job.config.task)
    split_seed, fit_seed = np.random.SeedSequence(job.config.seed).spawn(2)
    split = split_rows(goal, job.config.validation, np.random.default_rng(split_seed))

    started = time.monotonic()
    pipeline, history = _fit(job, table, goal, split, fit_seed, terminal)
    seconds = time.monotonic() - started
    constant = [table.feature_names[index] for index in np.flatnonzero(pipeline.feature_scaling.constant)]
    if constant:
        warn(
            f"constant in the training rows, kept and scaled by 1: {listed(constant)}; "
            "nothing can be learned from what never changes"
        )
    model_bytes = export.export(pipeline)
    export.verify(model_bytes, pipeline, table.features[split.training])
    metrics = _metrics(model_bytes, table, goal, split)
    manifest = _manifest(job, table, pipeline, metrics, sha256_of(model_bytes))
    files = {
        LEARNING_CURVE_FILE: draw_learning_curve(history, title=job.name),
        METRICS_FILE: _metrics_json(goal, split, history, metrics),
    }
    folder = publishing.publish(job.repository, job.name, model_bytes, manifest, files)
    return Outcome(folder, goal, table, split, history, metrics, seconds)


def _fit(
    job: Job, table: Table, goal: Goal, split: Split, seed: np.random.SeedSequence, terminal: TextIO | None
) -> tuple[Pipeline, History]:
    metric = "accuracy" if goal.is_classification else "r2"
    if terminal is None:
        return fit_pipeline(table, goal, split, job.config, seed)
    with Progress(terminal, job.config.epochs, metric) as progress:
        return fit_pipeline(table, goal, split, job.config, seed, progress)


def _metrics(model_bytes: bytes, table: Table, goal: Goal, split: Split) -> dict[str, float]:
    answers = export.run(model_bytes, table.features[split.validation])
    truth = goal.values[split.validation]
    if goal.is_classification:
        return classification_metrics(answers["probabilities"], truth.astype(np.int64))
    return regression_metrics(
        answers["mean"], answers.get("noise_variance"), truth.astype(np.float64), goal.output_names
    )


def _manifest(job: Job, table: Table, pipeline: Pipeline, metrics: dict[str, float], sha256: str) -> Manifest:
    libraries = ("dropserve", "torch", "numpy", "onnx")
    record = TrainingRecord(
        data_fingerprint=table.fingerprint(),
        rows=table.rows,
        seed=job.config.seed,
        versions={"python": platform.python_version(), **{name: version(name) for name in libraries}},
        metrics=metrics,
        config=job.config.model_dump(mode="json"),
    )
    return Manifest(
        task=pipeline.task,
        feature_names=pipeline.feature_names,
        output_names=pipeline.output_names,
        drop_rates=tuple(rate for rate in pipeline.drop_rates if rate > 0.0),
        predicts_noise=pipeline.predicts_noise,
        training=record,
        sha256=sha256,
    )


def _metrics_json(goal: Goal, split: Split, history: History, metrics: dict[str, float]) -> bytes:
    def line(epoch: Epoch | None) -> dict[str, float] | None:
        return None if epoch is None else asdict(epoch)

    document = {
        "task": goal.task,
        "training_rows": len(split.training),
        "validation_rows": len(split.validation),
        "validation": metrics,
        "score": history.metric,
        "kept": line(history.best),
        "epochs": [line(epoch) for epoch in history.epochs],
    }
    return json.dumps(document, indent=1).encode() + b"\n"
