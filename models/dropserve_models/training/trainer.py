"""From a data source to a published version: every step of a training run, in order."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict, replace
from typing import TextIO

import numpy as np

from dropserve_models import publishing
from dropserve_models.errors import ArtifactError, ConfigError
from dropserve_models.evaluation.learning import METRICS_FILE
from dropserve_models.terminal import StatusLine
from dropserve_models.training import export
from dropserve_models.training.calibrate import Calibrator
from dropserve_models.training.checkpoint import CheckpointFolder
from dropserve_models.training.config import TrainingConfig
from dropserve_models.training.crossvalidate import cross_validate
from dropserve_models.training.curve import draw_learning_curve
from dropserve_models.training.description import describe
from dropserve_models.training.device import device_name
from dropserve_models.training.job import Job, Outcome
from dropserve_models.training.metrics import metrics_of
from dropserve_models.training.pipelines import Fit, fit_pipelines
from dropserve_models.training.progress import Progress
from dropserve_models.training.randomness import derive
from dropserve_models.training.record import library_versions, metrics_json, training_record
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
        # What auto comes to depends on all rows, and the search sees some of them.
        config = job.config.model_copy(update={"calibration": calibrator.method})
        found = _search(job, config, job.search, table, goal, split, search_seed, terminal, checkpoints)
        kept = {"validation": job.config.validation, "calibration": job.config.calibration}
        job = replace(job, config=found.config.model_copy(update=kept))
        if found.stopped == "interrupted":
            warn(f"search interrupted; now training with the best so far, {settings(found)}")
        learned = Split(split.training, split.training[:0])  # every epoch, as the search had it
        if checkpoints is not None:  # interrupted, and begun again, the search may come to another choice
            checkpoints = checkpoints.after(found.config.model_dump(mode="json"))

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
        fitted.check_converged()
        history, seconds = fitted.history, time.monotonic() - started
        with _progress(job, goal, terminal, "calibration: ") as progress:
            calibrated = calibrator.calibrate(
                fitted, split.validation, device=job.device, on_epoch=progress, checkpoints=checkpoints
            )
    except KeyboardInterrupt:
        if found is not None:
            warn(f"the search had chosen {settings(found)}")
        raise
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
    manifest = describe(
        pipeline,
        model_bytes,
        columns=table.columns,
        calibration=calibrated.record,
        training=training_record(job.config, table, metrics, cross_validation, found),
    )
    files = {
        LEARNING_CURVE_FILE: draw_learning_curve(history, title=job.name),
        METRICS_FILE: metrics_json(goal, split, history, metrics),
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
    if job.search is not None and job.folds:
        raise ConfigError(
            "a search can't be combined with a cross-validation on the rows it chose by: search first, then "
            "give the settings it chose"
        )
    try:
        publishing.check_publishable(job.repository, job.name)
    except ArtifactError as error:
        raise ConfigError(str(error)) from error


def _search(
    job: Job,
    config: TrainingConfig,
    options: SearchOptions,
    table: Table,
    goal: Goal,
    split: Split,
    seed: np.random.SeedSequence,
    terminal: TextIO | None,
    checkpoints: CheckpointFolder | None,
) -> Found:
    with StatusLine(terminal) as line:
        return search(
            table,
            goal,
            config,
            options,
            seed,
            rows=split.training,
            device=job.device,
            on_progress=lambda text: line.show(f"search: {text}"),
            checkpoints=checkpoints,
        )


def _checkpoints(job: Job, table: Table, warn: Callable[[str], None]) -> CheckpointFolder | None:
    if job.checkpoint is None:
        return None
    run = {
        "data": table.fingerprint(),
        "config": job.config.model_dump(mode="json"),
        "folds": [job.folds, job.repeats],
        "search": None if job.search is None else asdict(job.search),
        "device": device_name(job.device),
        "versions": library_versions(),
    }
    checkpoints = CheckpointFolder(job.checkpoint, run)
    if checkpoints.check():
        warn(f"going on from the checkpoint in {job.checkpoint}")
    return checkpoints


def _progress(job: Job, goal: Goal, terminal: TextIO | None, title: str = "") -> Progress:
    metric = "accuracy" if goal.is_classification else "r2"
    return Progress(terminal, job.config.epochs, metric, title=title)


def _metrics(model_bytes: bytes, table: Table, goal: Goal, split: Split) -> dict[str, float]:
    if not len(split.validation):
        return {}
    return metrics_of(export.run(model_bytes, table.features[split.validation]), goal, split.validation)
