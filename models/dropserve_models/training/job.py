"""What a training run is asked for, and what it came to."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from dropserve_models.calibration import CalibrationRecord
from dropserve_models.inference.deterministic import Device
from dropserve_models.training.config import TrainingConfig
from dropserve_models.training.crossvalidate import CrossValidation
from dropserve_models.training.fit import History
from dropserve_models.training.search.found import Found
from dropserve_models.training.search.options import SearchOptions
from dropserve_models.training.split import Split
from dropserve_models.training.table import Table
from dropserve_models.training.task import Goal


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
        A folder to keep the state of the run in, its search included, and to go on from: a run that was
        killed continues to the same result when it is started again. Emptied when the model is published.
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
