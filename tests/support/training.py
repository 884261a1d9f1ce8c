"""Small training runs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from dropserve_models.training.config import TrainingConfig
from dropserve_models.training.job import Job


class Killed(BaseException):
    """Ends a run amid its work, as a kill would; nothing catches it."""


def job(repository: Path, data: str = "sklearn:iris", **options: Any) -> Job:
    """Of a quarter of a second, not calibrated."""
    config = TrainingConfig.from_mapping({"hidden": (16,), "epochs": 5, "calibration": "none"} | options)
    return Job(data, "model", repository, config=config)
