"""What a search came to."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np

from dropserve_models.manifest import FigureRecord, SearchRecord
from dropserve_models.training.config import TrainingConfig
from dropserve_models.training.crossvalidate import Figure, summarise
from dropserve_models.training.search.board import Trial
from dropserve_models.training.search.metrics import SIGNS

Stop = Literal["time", "trials", "interrupted"]
Verdict = Literal["overfits", "underfits", "fits"]

Scores = Mapping[int, dict[str, float]]
"""By fold: every metric."""


@dataclass(frozen=True, slots=True)
class Found:
    """What was chosen, and why.

    Attributes
    ----------
    config : TrainingConfig
        The chosen one; it runs all its epochs.
    metric : str
    chosen : Trial
    baseline : Trial
        Without dropout, otherwise the options given.
    baseline_on_training : dict of int to dict
        The baseline's scores on the rows it learned from, by fold.
    profile : list of (float, float, float)
        All else as chosen, drop rates of the hidden layers, the metric expected there, and its standard
        deviation; in the chosen one's folds.
    trials : list of Trial
    folds, repeats : int
        Of the most thoroughly tried.
    stopped : {"time", "trials", "interrupted"}
    seconds : float
    """

    config: TrainingConfig
    metric: str
    chosen: Trial
    baseline: Trial
    baseline_on_training: Scores
    profile: list[tuple[float, float, float]]
    trials: list[Trial]
    folds: int
    repeats: int
    stopped: Stop
    seconds: float

    def figure(self, scores: Scores, against: Scores | None = None) -> Figure:
        """Of the metric over the folds; or of the difference, on the folds that both were tried on."""
        values = np.full(self.folds * self.repeats, math.nan)
        for fold, one in scores.items():
            if against is None:
                values[fold] = one[self.metric]
            elif fold in against:
                values[fold] = one[self.metric] - against[fold][self.metric]
        tried = values.reshape(self.repeats, self.folds)
        return summarise(tried[~np.isnan(tried).all(axis=1)])

    @property
    def gap(self) -> Figure:
        """Of the baseline: on the rows it learned from, less on those held out."""
        return self.figure(self.baseline_on_training, self.baseline.scores)

    @property
    def gain(self) -> Figure:
        """Of the chosen setting over the baseline, on rows held out."""
        return self.figure(self.chosen.scores, self.baseline.scores)

    @property
    def verdict(self) -> Verdict:
        """Of the baseline.

        It overfits where the gap is beyond two standard errors. Where it isn't, it underfits if the chosen
        setting is better on rows held out, likewise.
        """
        if self._beyond(self.gap):
            return "overfits"
        return "underfits" if self._beyond(self.gain) else "fits"

    def _beyond(self, difference: Figure) -> bool:
        error = difference.standard_error if math.isfinite(difference.standard_error) else 0.0
        return SIGNS[self.metric] * difference.mean > 2.0 * error

    def record(self) -> SearchRecord:
        """What a manifest keeps."""
        figures = (self.figure(self.chosen.scores), self.figure(self.baseline.scores), self.gap)
        chosen, without_dropout, gap = (FigureRecord.model_validate(_plain(asdict(one))) for one in figures)
        return SearchRecord(
            metric=self.metric,
            folds=self.folds,
            repeats=self.repeats,
            trials=len(self.trials),
            stopped=self.stopped,
            chosen=chosen,
            without_dropout=without_dropout,
            gap=gap,
            verdict=self.verdict,
        )

    def to_json(self) -> bytes:
        """Everything that was tried, by fold; null for what is not defined."""
        document = {
            "metric": self.metric,
            "folds": self.folds,
            "repeats": self.repeats,
            "stopped": self.stopped,
            "seconds": round(self.seconds, 1),
            "config": self.config.model_dump(mode="json"),
            "chosen": {"trial": self.chosen.number, self.metric: self.figure(self.chosen.scores)},
            "without_dropout": {
                "trial": self.baseline.number,
                "verdict": self.verdict,
                "on_training_rows": self.figure(self.baseline_on_training),
                "on_rows_held_out": self.figure(self.baseline.scores),
                "gap": self.gap,
                "gain": self.gain,
            },
            "hidden_drop": [
                {"rate": rate, "expected": mean, "standard_deviation": std}
                for rate, mean, std in self.profile
            ],
            "trials": [_trial(trial) for trial in self.trials],
        }
        return json.dumps(_plain(document), indent=1, allow_nan=False).encode() + b"\n"


def _trial(trial: Trial) -> dict[str, Any]:
    scores = {str(fold): trial.scores[fold] for fold in sorted(trial.scores)}
    return {"trial": trial.number, "options": trial.options, "diverged": trial.diverged, "scores": scores}


def _plain(value: Any) -> Any:
    if isinstance(value, Figure):
        value = asdict(value)
    if isinstance(value, dict):
        return {key: _plain(entry) for key, entry in value.items()}
    if isinstance(value, list):
        return [_plain(entry) for entry in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
