"""manifest.json: what an artifact says about itself, beside its graph."""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path
from typing import Annotated, Self

from pydantic import Field, JsonValue, ValidationError, model_validator

from dropserve_models.calibration import CalibrationRecord
from dropserve_models.columns import Column, Kind
from dropserve_models.errors import ArtifactError
from dropserve_models.prediction import Task
from dropserve_models.record import Record

SCHEMA_VERSION = 1

_NUMBERS = re.compile(r"\[\n\s+[-+.\deE]+(,\n\s+[-+.\deE]+)*\n\s*\]")

Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
DropRate = Annotated[float, Field(ge=0.0, lt=1.0)]


def sha256_of(data: bytes) -> str:
    """SHA-256 of `data` in hexadecimal."""
    return hashlib.sha256(data).hexdigest()


class FigureRecord(Record):
    """A metric over the folds of a cross-validation."""

    mean: float
    standard_error: float | None
    """Of the mean, corrected for the rows that folds share (Nadeau & Bengio 2003)."""
    fold_std: float | None
    """Standard deviation of all folds."""
    repeat_std: float | None
    """Standard deviation of the repeats' means; null for a single repeat."""


class CrossValidationRecord(Record):
    """How good the same recipe was on rows left out; the model itself has learned from all rows."""

    folds: Annotated[int, Field(ge=2)]
    repeats: Annotated[int, Field(ge=1)]
    figures: dict[str, FigureRecord]
    """By metric."""


class SearchRecord(Record):
    """How the settings were chosen, on folds of the rows the model then learned from."""

    metric: str
    folds: Annotated[int, Field(ge=1)]
    repeats: Annotated[int, Field(ge=1)]
    """Of the settings that were tried most thoroughly."""
    trials: Annotated[int, Field(ge=1)]
    stopped: str
    """What ended the search: time, trials, or interrupted."""
    chosen: FigureRecord
    """The metric with the settings chosen, of Monte Carlo predictions on rows held out."""
    without_dropout: FigureRecord
    """The metric without dropout, likewise."""
    gap: FigureRecord
    """Without dropout: the metric on the rows learned from, less that on rows held out."""
    verdict: str
    """Whether that overfits."""


class TrainingRecord(Record):
    """How a model came to be: enough to train it again and get the same weights."""

    data_fingerprint: Sha256
    """SHA-256 of the table trained on: column names, shapes and values."""
    rows: Annotated[int, Field(ge=1)]
    """Rows of the table, the validation part included."""
    seed: Annotated[int, Field(ge=0)]
    versions: dict[str, str]
    """Library name to version: dropserve, torch, numpy, python."""
    metrics: dict[str, float]
    """On the validation part, deterministic, computed by ONNX Runtime from the exported graph."""
    config: dict[str, JsonValue]
    """Every training option, as it was in effect."""
    cross_validation: CrossValidationRecord | None = None
    """Where one was asked for."""
    search: SearchRecord | None = None
    """Where the settings in `config` were searched for."""


class ColumnRecord(Record):
    """What an input column holds."""

    kind: Kind
    categories: tuple[str, ...] = ()
    """What the codes 0, 1, ... stand for."""
    accepts_missing: bool = False
    """Whether a value may be NaN."""

    def column(self) -> Column:
        """The same as a plain value."""
        return Column(self.kind, self.categories, self.accepts_missing)


class Manifest(Record):
    """The content of manifest.json.

    Examples
    --------
    >>> manifest = Manifest.from_json(data)       # raises ArtifactError
    >>> manifest.to_json()
    """

    schema_version: Annotated[int, Field(ge=1)] = SCHEMA_VERSION
    task: Task
    feature_names: Annotated[tuple[str, ...], Field(min_length=1)]
    """The input columns, in order."""
    columns: tuple[ColumnRecord, ...] = ()
    """What each of them holds; empty where all are numbers, and none may be missing."""
    output_names: Annotated[tuple[str, ...], Field(min_length=1)]
    """Target names for regression, class labels for classifiers."""
    drop_rates: tuple[DropRate, ...]
    """The rate p of each Dropout node of the graph, in order of application."""
    predicts_noise: bool
    """Whether the graph has an output `noise_variance` (heteroscedastic regression)."""
    training: TrainingRecord | None = None
    calibration: CalibrationRecord | None = None
    """What intervals need, where the model was calibrated."""
    sha256: Sha256
    """Digest of model.onnx."""

    @model_validator(mode="after")
    def _parts_fit_together(self) -> Self:
        if self.task == "binary" and len(self.output_names) != 2:
            raise ValueError(f"a binary task has 2 class labels, not {len(self.output_names)}")
        if self.task != "regression" and self.predicts_noise:
            raise ValueError("only regression predicts noise")
        if len(self.columns) not in (0, len(self.feature_names)):
            raise ValueError(f"{len(self.columns)} columns for {len(self.feature_names)} feature names")
        if self.calibration is not None:
            self.calibration.check_outputs(len(self.output_names), classifier=self.task != "regression")
        return self

    def to_json(self) -> bytes:
        """The bytes of manifest.json, UTF-8, indented; a list of numbers takes one line."""
        text = self.model_dump_json(indent=2)
        # JSON has no line break inside a string, so what is matched is a list.
        return _NUMBERS.sub(_on_one_line, text).encode() + b"\n"

    @classmethod
    def from_json(cls, data: bytes, path: str | Path = "manifest.json") -> Self:
        """Read manifest.json; errors call it by its `path`.

        Raises
        ------
        ArtifactError
            It is not JSON, is of a newer schema version, or a field is missing or wrong.
        """
        try:
            document = json.loads(data)
        except (ValueError, RecursionError) as error:
            raise ArtifactError(f"{path} is not JSON: {error}") from error
        version = document.get("schema_version") if isinstance(document, dict) else None
        if isinstance(version, int) and version > SCHEMA_VERSION:
            raise ArtifactError(
                f"{path} has schema version {version}, this dropserve reads up to {SCHEMA_VERSION}: "
                "update dropserve"
            )
        try:
            return cls.model_validate_json(data)
        except ValidationError as error:
            first = error.errors(include_url=False, include_input=False)[0]
            where = ".".join(str(part) for part in first["loc"]) or "the whole"
            raise ArtifactError(f"{path} is malformed: {where}: {first['msg']}") from error


def _on_one_line(found: re.Match[str]) -> str:
    return f"[{', '.join(found.group().strip('[]').replace(',', ' ').split())}]"
