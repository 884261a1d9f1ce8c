"""Calibrated intervals and prediction sets: how often they hold the truth, and how large they are."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from dropserve_models.errors import InputError, IntervalUnavailable
from dropserve_models.evaluation.figure import Figure, mean_figure, missing
from dropserve_models.evaluation.metrics import covered
from dropserve_models.evaluation.metrics.gaussian import Doubles
from dropserve_models.model import Model
from dropserve_models.prediction import Prediction

NOMINAL = np.linspace(0.02, 0.98, 49)
"""Coverages that curves are drawn of."""

Kind = Literal["interval", "set"]

NAMES: dict[Kind, tuple[str, str]] = {
    "interval": ("interval_picp", "interval_width"),
    "set": ("set_coverage", "set_size"),
}
"""Of the figures of a coverage: how often the truth is inside, and how large what it is in."""


@dataclass(frozen=True, slots=True)
class Held:
    """What the intervals (sets) of one coverage did.

    Attributes
    ----------
    inside : ndarray of bool [rows, outputs]
        Whether the truth is in them; [rows, 1] for classifiers.
    size : ndarray, likewise
        Their widths, or how many classes they have.
    """

    inside: NDArray[np.bool_]
    size: Doubles


@dataclass(frozen=True, slots=True)
class Calibrated:
    """What a model's calibrated answers in one mode did.

    Attributes
    ----------
    kind : {"interval", "set"}
        Of regression, of classifiers.
    asked : dict of float to Held or str
        By coverage; the reason where the model refuses it.
    curve : ndarray [coverages, outputs, 3]
        Nominal coverage, that observed, and the mean size, of those of `NOMINAL` that the model answers.
    """

    kind: Kind
    asked: dict[float, Held | str]
    curve: Doubles

    def figures(self, output: int) -> dict[str, Figure]:
        """Coverage and mean size of one output (0 for classifiers), for each coverage that was asked for."""
        found = {}
        for coverage, held in self.asked.items():
            inside, size = (f"{name}_{100.0 * coverage:g}" for name in NAMES[self.kind])
            if isinstance(held, str):
                found[inside] = found[size] = missing(held)
                continue
            found[inside] = mean_figure(held.inside[:, output])
            sizes = held.size[:, output]
            finite = bool(np.isfinite(sizes).all())
            found[size] = mean_figure(sizes) if finite else missing("some intervals have no end")
        return found


def judge(model: Model, prediction: Prediction, truth: Doubles, coverages: Sequence[float]) -> Calibrated:
    """Hold a model's calibrated intervals or sets against the truth.

    Parameters
    ----------
    prediction : Prediction
        Of the model, of all rows.
    truth : ndarray [rows, outputs]
        Targets, or numbers of the classes, [rows, 1].
    coverages : sequence of float
    """
    kind: Kind = "interval" if model.info.task == "regression" else "set"
    asked = {coverage: _held(model, prediction, truth, coverage) for coverage in coverages}
    curve = []
    for nominal in NOMINAL.tolist():
        held = _held(model, prediction, truth, nominal)
        if isinstance(held, Held):
            observed = held.inside.mean(axis=0)
            curve.append(
                np.stack([np.full_like(observed, nominal), observed, held.size.mean(axis=0)], axis=1)
            )
    return Calibrated(kind, asked, np.array(curve).reshape(len(curve), truth.shape[1], 3))


def _held(model: Model, prediction: Prediction, truth: Doubles, coverage: float) -> Held | str:
    try:
        answer = model.add_interval(prediction, coverage)
    except (InputError, IntervalUnavailable) as error:
        return str(error)
    if answer.prediction_set is not None:
        inside = answer.prediction_set[np.arange(len(truth)), truth[:, 0].astype(np.int64)] > 0.0
        return Held(inside[:, None], answer.prediction_set.sum(axis=1, dtype=np.float64)[:, None])
    assert answer.interval_lower is not None
    assert answer.interval_upper is not None
    lower, upper = answer.interval_lower.astype(np.float64), answer.interval_upper.astype(np.float64)
    return Held(covered(truth, lower, upper), upper - lower)
