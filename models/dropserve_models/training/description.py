"""What a manifest says of a pipeline."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict

from dropserve_models.calibration import CalibrationRecord
from dropserve_models.columns import Column
from dropserve_models.manifest import ColumnRecord, Manifest, TrainingRecord, sha256_of
from dropserve_models.training.pipeline import Pipeline


def describe(
    pipeline: Pipeline,
    model_bytes: bytes,
    *,
    columns: Sequence[Column] = (),
    calibration: CalibrationRecord | None = None,
    training: TrainingRecord | None = None,
) -> Manifest:
    """The manifest of a pipeline that was exported to `model_bytes`.

    Parameters
    ----------
    columns : sequence of Column
        What the table's columns hold; empty where all are numbers without gaps.
    """
    return Manifest(
        task=pipeline.task,
        feature_names=pipeline.feature_names,
        columns=tuple(ColumnRecord(**asdict(column)) for column in columns),
        output_names=pipeline.output_names,
        drop_rates=tuple(rate for rate in pipeline.drop_rates if rate > 0.0),
        predicts_noise=pipeline.predicts_noise,
        training=training,
        calibration=calibration,
        sha256=sha256_of(model_bytes),
    )
