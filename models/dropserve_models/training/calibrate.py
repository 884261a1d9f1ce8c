"""Calibration of a model that was trained: the rows it takes, what is fitted on them, and their scores."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from dropserve_models.calibration import CalibrationRecord, ModeRecord
from dropserve_models.conformal import classification_scores, regression_scores, thinned_ranks
from dropserve_models.errors import DataError
from dropserve_models.inference.deterministic import Device
from dropserve_models.prediction import MonteCarloOptions, Prediction
from dropserve_models.training.checkpoint import CheckpointFolder
from dropserve_models.training.config import Calibration, TrainingConfig
from dropserve_models.training.crossvalidate import fit_folds
from dropserve_models.training.fit import OnEpoch
from dropserve_models.training.pipeline import Pipeline
from dropserve_models.training.pipelines import Fitted
from dropserve_models.training.randomness import derive
from dropserve_models.training.split import Rows, fewest_rows
from dropserve_models.training.table import Doubles, Table
from dropserve_models.training.task import Goal
from dropserve_models.training.tuning import MONTE_CARLO, Answers, HeldOut, Tuning, tune

MANY_ROWS = 5000
"""From so many rows on, holding a tenth of them out costs less than fitting several more models."""
FEW_ROWS = 40
"""With fewer, the folds of a cross-validation are too small to learn from unless that is asked for."""
HELD_OUT = 0.1

FEWEST_FOLDS, MOST_FOLDS = 10, 20
SLOW_ROWS = 2000
"""From so many rows on there are `FEWEST_FOLDS`: the models of the folds are hardly worse than the one that
learns from all rows, and fits take longer."""


def resolve(calibration: Calibration, rows: int) -> Literal["cv", "none"] | float:
    """What auto means for a table of so many rows."""
    if calibration != "auto":
        return calibration
    if rows < FEW_ROWS:
        return "none"
    return "cv" if rows < MANY_ROWS else HELD_OUT


def folds_of(rows: int) -> int:
    """Parts that as many rows are dealt into, to be left out in turn.

    A model that learned from a tenth fewer rows can be so much worse, where rows are few, that intervals of
    95 % hold 97. The more folds, the nearer come their models to the published one (Barber et al., Annals of
    Statistics 49, 2021: jackknife+ is the limit, with as many folds as rows).
    """
    return min(rows, MOST_FOLDS if rows < SLOW_ROWS else FEWEST_FOLDS)


def hold_out(rows: int, fraction: float, random: np.random.Generator) -> tuple[Rows, Rows]:
    """Row numbers to learn from, and to calibrate on.

    By chance alone, not of each class alike: the guarantee is for rows drawn as the rows to come are.

    Raises
    ------
    DataError
        No row would be left on one side.
    """
    count = round(fraction * rows)
    if not 0 < count < rows:
        raise DataError(f"calibration on {fraction:g} of {rows} rows leaves no rows on one of the sides")
    shuffled = random.permutation(rows)
    return np.sort(shuffled[count:]), np.sort(shuffled[:count])


@dataclass(frozen=True, slots=True)
class Calibrated:
    """A pipeline as it is exported, and what its manifest says of its calibration."""

    pipeline: Pipeline
    record: CalibrationRecord | None


class Calibrator:
    """Calibrates the model of one training run.

    Parameters
    ----------
    table : Table
    goal : Goal
    config : TrainingConfig
        `calibration` says how.
    seed : SeedSequence

    Attributes
    ----------
    method : "cv", "none" or float
        Fraction of the rows that is held out.
    rows_to_learn_from : ndarray
        Numbers of the rows that are not held out to calibrate on.

    Raises
    ------
    DataError
        The rows are too few to hold some out, or for the folds.
    """

    def __init__(
        self, table: Table, goal: Goal, config: TrainingConfig, seed: np.random.SeedSequence
    ) -> None:
        self._table, self._goal = table, goal
        self._rows_seed, self._folds_seed = derive(seed, 2)
        self.method = resolve(config.calibration, table.rows)
        self.rows_to_learn_from, self._held_out = np.arange(table.rows), np.arange(0)
        fewest = fewest_rows(config.validation)
        if isinstance(self.method, float):
            self.rows_to_learn_from, self._held_out = hold_out(
                table.rows, self.method, np.random.default_rng(self._rows_seed)
            )
            if (left := len(self.rows_to_learn_from)) < fewest:
                raise DataError(
                    f"calibration on {self.method:g} of {table.rows} rows leaves {left} to learn from: "
                    f"at least {fewest} are needed"
                )
        elif self.method == "cv" and table.rows <= fewest:
            # Each fold leaves a row out. Told now, not when the model has been trained.
            raise DataError(
                f"calibration by folds needs at least {fewest + 1} rows, and there are {table.rows}: "
                "ask for --calibration none"
            )

    def calibrate(
        self,
        fitted: Fitted,
        validation: Rows,
        *,
        device: Device = "auto",
        on_epoch: OnEpoch = lambda epochs: (),
        checkpoints: CheckpointFolder | None = None,
    ) -> Calibrated:
        """Calibrate the model that was fitted; with cv, by others that are fitted here by the same recipe.

        Parameters
        ----------
        fitted : Fitted
        validation : ndarray
            Rows that no weights were learned from; its best epoch may have been chosen on them.

        Raises
        ------
        ConfigError
            The training of a fold diverged.
        DataError
            A row is so far from the others that a model can't answer it.
        """
        if self.method == "none":
            return Calibrated(fitted.pipeline, None)
        if self.method != "cv":
            return self._on_held_out_rows(fitted, validation)
        config = fitted.fit.config
        if not len(fitted.fit.split.validation):
            config = config.model_copy(update={"validation": 0.0})
        parts = fit_folds(
            self._table,
            self._goal,
            config,
            folds_of(self._table.rows),
            1,
            self._folds_seed,
            device=device,
            on_epoch=on_epoch,
            checkpoints=checkpoints,
            stage="calibration",
        )
        folds = [HeldOut(fold.pipeline, rows) for fold, rows in parts]
        tuning, answers = tune(self._table, self._goal, folds)
        return self._finished(fitted, tuning, answers, "cross")

    def _on_held_out_rows(self, fitted: Fitted, validation: Rows) -> Calibrated:
        """Split conformal calibration.

        Were temperature and noise scale fitted on the scored rows, scores there would be smaller than those
        of new rows, and the guarantee lost. So they are fitted on the validation rows, if there are any.
        """
        tuning = Tuning()
        if len(validation):
            tuning, _ = tune(self._table, self._goal, [HeldOut(fitted.pipeline, validation)])
        scored = tuning.apply_to(HeldOut(fitted.pipeline, self._held_out))
        return self._finished(fitted, tuning, [Answers.of(self._table, scored)], "split")

    def _finished(
        self, fitted: Fitted, tuning: Tuning, parts: Sequence[Answers], method: Literal["split", "cross"]
    ) -> Calibrated:
        record = _record(self._goal, tuning, parts, method)
        return Calibrated(tuning.apply(fitted.pipeline), record)


def _record(
    goal: Goal, tuning: Tuning, parts: Sequence[Answers], method: Literal["split", "cross"]
) -> CalibrationRecord:
    single = [_scores(part.single, goal, part.rows, tuning) for part in parts]
    several = [_scores(part.several, goal, part.rows, tuning) for part in parts if part.several is not None]
    return CalibrationRecord(
        method=method,
        rows=sum(len(part.rows) for part in parts),
        guaranteed=method == "split",
        temperature=tuning.temperature,
        noise_scale=tuning.noise_scale,
        noise_variance=tuning.noise_variance,
        deterministic=_mode_record(single, tuning, None),
        monte_carlo=_mode_record(several, tuning, MONTE_CARLO) if several else None,
    )


def _scores(prediction: Prediction, goal: Goal, rows: Rows, tuning: Tuning) -> Doubles:
    if goal.is_classification:
        return classification_scores(prediction, goal.values[rows].astype(np.int64))
    noise = None if tuning.noise_variance is None else np.array(tuning.noise_variance)
    return regression_scores(prediction, goal.values[rows].astype(np.float64), noise)


def _mode_record(scores: Sequence[Doubles], tuning: Tuning, options: MonteCarloOptions | None) -> ModeRecord:
    ordered = np.sort(np.concatenate(scores), axis=0)
    ranks = thinned_ranks(len(ordered))
    if ranks is not None:
        ordered = ordered[np.array(ranks) - 1]
    return ModeRecord(
        scores=tuple(tuple(column) for column in ordered.T.tolist()),
        ranks=ranks,
        log_likelihood=tuning.log_likelihoods.get("deterministic" if options is None else "monte_carlo"),
        passes=None if options is None else options.passes,
        masks=None if options is None else options.masks,
    )
