"""Calibrated intervals of numbers, and sets of classes: how often they hold the truth, how large they are."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from benchmarks.uncertainty.figures import Figures
from dropserve_models.evaluation.calibrated import Held, judge
from dropserve_models.model import Model
from dropserve_models.prediction import Prediction

COVERAGE = 0.95


@dataclass(frozen=True, slots=True)
class Cover:
    """What a model's intervals, or sets, of coverage `COVERAGE` did on rows left out.

    Attributes
    ----------
    held : float
        The share of the rows whose truth is inside.
    size : float
        Mean width, or number of classes.
    """

    held: float
    size: float


def cover(model: Model, prediction: Prediction, truth: NDArray[np.generic]) -> Cover:
    """Hold the intervals, or sets, of a prediction against the truth, [rows] of classes or [rows, 1]."""
    found = judge(model, prediction, truth.reshape(-1, 1).astype(np.float64), [COVERAGE]).asked[COVERAGE]
    if not isinstance(found, Held):
        raise ValueError(found)
    return Cover(float(found.inside.mean()), float(found.size.mean()))


def add_covers(figures: Figures, case: str, covers: Sequence[Cover], *, classifier: bool) -> None:
    """Of every split or fold."""
    kind, size = ("sets", "their mean size") if classifier else ("intervals", "their mean width")
    unit = "classes" if classifier else ""
    figures.add(case, f"{COVERAGE:.0%} {kind} hold", [one.held for one in covers], "", {"nominal": COVERAGE})
    figures.add(case, size, [one.size for one in covers], unit)
