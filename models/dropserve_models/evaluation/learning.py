"""The learning curve that training left in an artifact's metrics.json."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

METRICS_FILE = "metrics.json"
_MOST_BYTES = 2**26


@dataclass(frozen=True, slots=True)
class LearningCurve:
    """Every epoch of a training run.

    Attributes
    ----------
    epochs : list of int
    loss : list of float
        On the training rows, with dropout.
    validation_loss, score : list of float or None
        On the rows held out, where there were any.
    metric : str
        The name of the score.
    kept : int or None
        The epoch whose weights the model has.
    """

    epochs: list[int]
    loss: list[float]
    validation_loss: list[float] | None
    score: list[float] | None
    metric: str
    kept: int | None


def read_learning_curve(folder: str | Path) -> LearningCurve | None:
    """Read ``FOLDER/metrics.json``; None where there is none, or what is there is no learning curve."""
    path = Path(folder) / METRICS_FILE
    try:
        if path.stat().st_size > _MOST_BYTES or not path.resolve().is_relative_to(Path(folder).resolve()):
            return None
        document = json.loads(path.read_bytes())
        epochs = document["epochs"]
        loss = _numbers(epochs, "loss")
        if not loss:
            return None
        held_out = epochs[0]["validation_loss"] is not None
        return LearningCurve(
            epochs=[int(number) for number in _numbers(epochs, "number")],
            loss=loss,
            validation_loss=_numbers(epochs, "validation_loss") if held_out else None,
            score=_numbers(epochs, "score") if held_out else None,
            metric=str(document["score"])[:40],
            kept=None if document["kept"] is None else int(document["kept"]["number"]),
        )
    except (OSError, ValueError, KeyError, TypeError, IndexError, OverflowError, RecursionError):
        return None


def _numbers(epochs: list[dict[str, Any]], name: str) -> list[float]:
    numbers = [float(epoch[name]) for epoch in epochs]
    if not all(math.isfinite(number) for number in numbers):
        raise ValueError(name)
    return numbers
