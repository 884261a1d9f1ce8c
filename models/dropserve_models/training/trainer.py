"""From a data source to a published version: every step of a training run, in order."""

from __future__ import annotations

import io
import json
import platform
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from importlib.metadata import version
from pathlib import Path
from typing import TextIO

import numpy as np

from dropserve_models import publishing
from dropserve_models.calibration import CalibrationRecord
from dropserve_models.errors import ArtifactError, ConfigError
from dropserve_models.evaluation.learning import METRICS_FILE
from dropserve_models.inference.deterministic import Device
from dropserve_models.manifest import ColumnRecord, Manifest, TrainingRecord, sha256_of
from dropserve_models.training import export
from dropserve_models.training.calibrate import Calibrated, Calibrator
from dropserve_models.training.checkpoint import CheckpointFolder
from dropserve_models.training.config import TrainingConfig
from dropserve_models.training.crossvalidate import CrossValidation, cross_validate
from dropserve_models.training.curve import draw_learning_curve
from dropserve_models.training.fit import Epoch, History
from dropserve_models.training.metrics import metrics_of
from dropserve_models.training.pipelines import Fit, fit_pipelines
from dropserve_models.training.progress import Progress, StatusLine
from dropserve_models.training.randomness import derive
from dropserve_models.training.search.found import Found
from dropserve_models.training.search.options import SearchOptions
from dropserve_models.training.search.report import settings
from dropserve_models.training.search.search import search
from dropserve_models.training.sources import read_table
from dropserve_models.training.split import Split, split_rows
from dropserve_models.training.table import Table, listed
from dropserve_models.training.task import Goal, recognise

LEARNING_CURVE_FILE = "learning_curve.png"
CROSS_VALIDATION_FILE = "cross_validation.json"
SEARCH_FILE = "search.json"


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
    categorical : tuple of str
        Columns whose numbers are the names of categories, by name or by number.
    config : TrainingConfig
    folds : int
        Of a cross-validation beforehand, at least 2; 0 for none.
    repeats : int
        Of the cross-validation.
    checkpoint : Path or None
        A folder to keep the state of the run in, and to go on from: a run that was killed continues to the
        same result when it is started again. Emptied when the model is published.
    device : {"auto", "cpu", "cuda"}
    search : SearchOptions or None
        Choose settings first, on folds of the rows that are then all learned from, for all epochs; those held
        out for validation are not seen by it. Options that `config` was made with are kept.
    """

    data: str
    name: str
    repository: Path
    targets: tuple[str, ...] = ()
    header: bool = True
    categorical: tuple[str, ...] = ()
    config: TrainingConfig = field(default_factory=TrainingConfig)
    folds: int = 0
    repeats: int = 1
    checkpoint: Path | None = None
    device: Device = "auto"
    search: SearchOptions | None = None


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a training run came to.

    Attributes
    ----------
    folder : Path
        The version that was published.
    metrics : dict of str to float
        Deterministic, on the validation rows, through the exported graph; none where none were held out.
    seconds : float
        Spent in the training loop.
    cross_validation : CrossValidation or None
    cross_validation_seconds : float
    found : Found or None
        What the search came to.
    calibration : CalibrationRecord or None
    """

    folder: Path
    goal: Goal
    table: Table
    split: Split
    history: History
    metrics: dict[str, float]
    seconds: float
    cross_validation: CrossValidation | None = None
    cross_validation_seconds: float = 0.0
    found: Found | None = None
    calibration: CalibrationRecord | None = None


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
    _check(job)
    table = read_table(job.data, job.targets, header=job.header, categorical=job.categorical)
    goal = recognise(table, job.config.task)
    split_seed, fit_seed, folds_seed, search_seed, calibration_seed = derive(
        np.random.SeedSequence(job.config.seed), 5
    )
    calibrator = Calibrator(table, goal, job.config, calibration_seed)
    split = split_rows(
        goal, job.config.validation, np.random.default_rng(split_seed), calibrator.rows_to_learn_from
    )
    checkpoints = _checkpoints(job, table, warn)

    found, learned = None, split
    if job.search is not None:
        found = _search(job, job.search, table, goal, split, search_seed, terminal)
        config = found.config.model_copy(update={"validation": job.config.validation})
        job = replace(job, config=config)
        if found.stopped == "interrupted":
            warn(f"search interrupted; now training with the best so far, {settings(found)}")
        learned = Split(split.training, split.training[:0])  # every epoch, as the search had it

    cross_validation, cross_validation_seconds = None, 0.0
    if job.folds:
        started = time.monotonic()
        with _progress(job, goal, terminal, "cross-validation: ") as progress:
            cross_validation = cross_validate(
                table,
                goal,
                job.config,
                job.folds,
                job.repeats,
                folds_seed,
                device=job.device,
                on_epoch=progress,
                checkpoints=checkpoints,
            )
        cross_validation_seconds = time.monotonic() - started

    started = time.monotonic()
    fit = Fit(learned, job.config, fit_seed)
    try:
        with _progress(job, goal, terminal) as progress:
            (fitted,) = fit_pipelines(
                table, goal, [fit], device=job.device, on_epoch=progress, checkpoints=checkpoints
            )
    except KeyboardInterrupt:
        if found is not None:
            warn(f"the search had chosen {settings(found)}")
        raise
    fitted.check_converged()
    history, seconds = fitted.history, time.monotonic() - started
    with _progress(job, goal, terminal, "calibration: ") as progress:
        calibrated = calibrator.calibrate(
            fitted, split.validation, device=job.device, on_epoch=progress, checkpoints=checkpoints
        )
    pipeline = calibrated.pipeline
    constant = [table.feature_names[index] for index in pipeline.encoding.constant()]
    if constant:
        warn(
            f"constant in the training rows, kept and scaled by 1: {listed(constant)}; "
            "nothing can be learned from what never changes"
        )
    model_bytes = export.export(pipeline)
    export.verify(model_bytes, pipeline, table.features[split.training])
    metrics = _metrics(model_bytes, table, goal, split)
    manifest = _manifest(job, table, calibrated, metrics, cross_validation, found, sha256_of(model_bytes))
    files = {
        LEARNING_CURVE_FILE: draw_learning_curve(history, title=job.name),
        METRICS_FILE: _metrics_json(goal, split, history, metrics),
    }
    if cross_validation is not None:
        files[CROSS_VALIDATION_FILE] = cross_validation.to_json()
    if found is not None:
        files[SEARCH_FILE] = found.to_json()
    folder = publishing.publish(job.repository, job.name, model_bytes, manifest, files)
    if checkpoints is not None:
        checkpoints.remove()
    return Outcome(
        folder=folder,
        goal=goal,
        table=table,
        split=split,
        history=history,
        metrics=metrics,
        seconds=seconds,
        cross_validation=cross_validation,
        cross_validation_seconds=cross_validation_seconds,
        found=found,
        calibration=calibrated.record,
    )


def _check(job: Job) -> None:
    if job.folds == 1 or job.folds < 0:
        raise ConfigError(f"cross-validation needs at least 2 folds, not {job.folds}")
    if job.repeats < 1 or (job.repeats > 1 and not job.folds):
        raise ConfigError(
            f"{job.repeats} repeats of a cross-validation: give at least 1, and the number of folds with it"
        )
    if job.search is not None and (job.folds or job.checkpoint is not None):
        raise ConfigError(
            "a search can't be combined with "
            + ("a cross-validation on the rows it chose by" if job.folds else "a checkpoint")
            + ": search first, then give the settings it chose"
        )
    try:
        publishing.check_publishable(job.repository, job.name)
    except ArtifactError as error:
        raise ConfigError(str(error)) from error


def _search(
    job: Job,
    options: SearchOptions,
    table: Table,
    goal: Goal,
    split: Split,
    seed: np.random.SeedSequence,
    terminal: TextIO | None,
) -> Found:
    with StatusLine(terminal or io.StringIO()) as line:
        return search(
            table,
            goal,
            job.config,
            options,
            seed,
            rows=split.training,
            device=job.device,
            on_progress=lambda text: line.show(f"search: {text}"),
        )


def _checkpoints(job: Job, table: Table, warn: Callable[[str], None]) -> CheckpointFolder | None:
    if job.checkpoint is None:
        return None
    run = {
        "data": table.fingerprint(),
        "config": job.config.model_dump(mode="json"),
        "folds": [job.folds, job.repeats],
        "device": job.device,
        "versions": _versions(),
    }
    checkpoints = CheckpointFolder(job.checkpoint, run)
    if checkpoints.check():
        warn(f"going on from the checkpoint in {job.checkpoint}")
    return checkpoints


def _progress(job: Job, goal: Goal, terminal: TextIO | None, title: str = "") -> Progress:
    metric = "accuracy" if goal.is_classification else "r2"
    return Progress(terminal or io.StringIO(), job.config.epochs, metric, title=title)


def _metrics(model_bytes: bytes, table: Table, goal: Goal, split: Split) -> dict[str, float]:
    if not len(split.validation):
        return {}
    return metrics_of(export.run(model_bytes, table.features[split.validation]), goal, split.validation)


def _versions() -> dict[str, str]:
    libraries = ("dropserve", "torch", "numpy", "onnx")
    return {"python": platform.python_version(), **{name: version(name) for name in libraries}}


def _manifest(
    job: Job,
    table: Table,
    calibrated: Calibrated,
    metrics: dict[str, float],
    cross_validation: CrossValidation | None,
    found: Found | None,
    sha256: str,
) -> Manifest:
    record = TrainingRecord(
        data_fingerprint=table.fingerprint(),
        rows=table.rows,
        seed=job.config.seed,
        versions=_versions(),
        metrics=metrics,
        config=job.config.model_dump(mode="json"),
        cross_validation=None if cross_validation is None else cross_validation.record(),
        search=None if found is None else found.record(),
    )
    pipeline = calibrated.pipeline
    return Manifest(
        task=pipeline.task,
        feature_names=pipeline.feature_names,
        columns=tuple(ColumnRecord(**asdict(column)) for column in table.columns),
        output_names=pipeline.output_names,
        drop_rates=tuple(rate for rate in pipeline.drop_rates if rate > 0.0),
        predicts_noise=pipeline.predicts_noise,
        training=record,
        calibration=calibrated.record,
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
