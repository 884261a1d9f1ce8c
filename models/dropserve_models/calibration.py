"""What manifest.json says about a model's calibration: enough for an interval of any coverage."""

from __future__ import annotations

from itertools import pairwise
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from dropserve_models.prediction import Masks
from dropserve_models.record import Record

Positive = Annotated[float, Field(gt=0.0)]
Score = Annotated[float, Field(ge=0.0)]


class LikelihoodRecord(Record):
    """Mean log-likelihood a row, in nats, on the rows that temperature and noise scale were fitted on."""

    before: float
    after: float


class ModeRecord(Record):
    """How far one mode's answers were from the truth on the calibration rows.

    Scores are |y - mean| / s for regression, with s the predictive standard deviation of the mode, and 1 - p
    of the true class for classifiers.
    """

    scores: Annotated[tuple[tuple[Score, ...], ...], Field(min_length=1)]
    """Ascending, a list for each target; a single one for classifiers."""
    ranks: tuple[int, ...] | None = None
    """Which of the rows' scores were kept, counted from 1; null: all."""
    log_likelihood: LikelihoodRecord | None = None
    """Null where nothing was fitted."""
    passes: Annotated[int, Field(ge=1)] | None = None
    """Of Monte Carlo mode."""
    masks: Masks | None = None
    """Of Monte Carlo mode."""


class CalibrationRecord(Record):
    """Conformity scores of both modes, and what was fitted beside them."""

    method: Literal["split", "cross"]
    """split: on rows held out from all else. cross: on rows left out by the folds of a cross-validation."""
    rows: Annotated[int, Field(ge=1)]
    """How many calibration rows there were."""
    guaranteed: bool
    """Whether the coverage has a finite-sample guarantee: that of split conformal prediction."""
    temperature: Positive | None = None
    """By which the graph's logits are divided, already inside model.onnx; null where none was fitted."""
    noise_scale: tuple[Positive, ...] | None = None
    """By which the noise variance of each target is multiplied, already inside model.onnx."""
    noise_variance: tuple[Positive, ...] | None = None
    """Of each target, where the graph predicts none: part of the s of both modes."""
    deterministic: ModeRecord
    monte_carlo: ModeRecord | None = None
    """Null where the model can't answer with error bars."""

    @model_validator(mode="after")
    def _scores_are_those_of_the_rows(self) -> Self:
        for mode in (self.deterministic, self.monte_carlo):
            if mode is None:
                continue
            ranks = range(1, self.rows + 1) if mode.ranks is None else mode.ranks
            if not ranks or ranks[0] < 1 or ranks[-1] != self.rows or not _ascending(ranks, strictly=True):
                raise ValueError(f"ranks must ascend from 1 or more to {self.rows}, the number of rows")
            for scores in mode.scores:
                if len(scores) != len(ranks):
                    raise ValueError(f"there are {len(scores)} scores for {len(ranks)} ranks")
                if not _ascending(scores):
                    raise ValueError("scores must ascend")
        return self

    def check_outputs(self, outputs: int, *, classifier: bool) -> None:
        """Raise ValueError unless the record is one of a model with so many outputs."""
        lists = 1 if classifier else outputs
        for mode in (self.deterministic, self.monte_carlo):
            if mode is not None and len(mode.scores) != lists:
                raise ValueError(f"{len(mode.scores)} lists of scores, not {lists}")
        for values in (self.noise_scale, self.noise_variance):
            if values is not None and (classifier or len(values) != outputs):
                raise ValueError("the noise is not that of each target")


def _ascending(values: range | tuple[int, ...] | tuple[float, ...], *, strictly: bool = False) -> bool:
    if isinstance(values, range):
        return True
    return all(low < high if strictly else low <= high for low, high in pairwise(values))
