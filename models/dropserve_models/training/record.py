"""What is written down of a training run, beside the model."""

from __future__ import annotations

import json
import platform
from dataclasses import asdict
from importlib.metadata import version

from dropserve_models.manifest import TrainingRecord
from dropserve_models.training.config import TrainingConfig
from dropserve_models.training.crossvalidate import CrossValidation
from dropserve_models.training.fit import Epoch, History
from dropserve_models.training.search.found import Found
from dropserve_models.training.split import Split
from dropserve_models.training.table import Table
from dropserve_models.training.task import Goal


def library_versions() -> dict[str, str]:
    """Of what the bytes of a model depend on, by name."""
    libraries = ("dropserve", "torch", "numpy", "onnx")
    return {"python": platform.python_version(), **{name: version(name) for name in libraries}}


def training_record(
    config: TrainingConfig,
    table: Table,
    metrics: dict[str, float],
    cross_validation: CrossValidation | None,
    found: Found | None,
) -> TrainingRecord:
    """What a manifest says of the run that learned from `table`."""
    return TrainingRecord(
        data_fingerprint=table.fingerprint(),
        rows=table.rows,
        seed=config.seed,
        versions=library_versions(),
        metrics=metrics,
        config=config.model_dump(mode="json"),
        cross_validation=None if cross_validation is None else cross_validation.record(),
        search=None if found is None else found.record(),
    )


def metrics_json(goal: Goal, split: Split, history: History, metrics: dict[str, float]) -> bytes:
    """The metrics on the validation rows, and every epoch."""

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
