"""Cross-validation: how good a recipe is on rows it has not seen, and how sure that is."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass

import numpy as np
from numpy.typing import NDArray

from dropserve_models.errors import ConfigError
from dropserve_models.inference.deterministic import Device
from dropserve_models.manifest import CrossValidationRecord, FigureRecord
from dropserve_models.training.checkpoint import CheckpointFolder
from dropserve_models.training.config import TrainingConfig
from dropserve_models.training.fit import OnEpoch
from dropserve_models.training.metrics import metrics_of
from dropserve_models.training.pipelines import Fit, Fitted, fit_pipelines
from dropserve_models.training.randomness import derive
from dropserve_models.training.split import split_rows
from dropserve_models.training.table import Table
from dropserve_models.training.task import Goal


@dataclass(frozen=True, slots=True)
class Figure:
    """A metric over all folds.

    Attributes
    ----------
    mean : float
    standard_error : float
        Of the mean as an estimate for tables of this size, corrected for the rows that folds share.
    fold_std : float
        Standard deviation of all folds.
    repeat_std : float or None
        Standard deviation of the repeats' means; None for a single repeat.
    """

    mean: float
    standard_error: float
    fold_std: float
    repeat_std: float | None


@dataclass(frozen=True, slots=True)
class CrossValidation:
    """Metrics of every fold.

    Attributes
    ----------
    folds, repeats : int
    values : dict of str to ndarray [repeats, folds]
        By metric; NaN where a fold leaves it undefined.
    """

    folds: int
    repeats: int
    values: dict[str, NDArray[np.float64]]

    def figures(self) -> dict[str, Figure]:
        """Every metric's mean and how sure it is."""
        return {name: summarise(values) for name, values in self.values.items()}

    def record(self) -> CrossValidationRecord:
        """The figures, as a manifest keeps them."""
        figures = {
            name: FigureRecord.model_validate({key: _finite(value) for key, value in asdict(figure).items()})
            for name, figure in self.figures().items()
            if math.isfinite(figure.mean)
        }
        return CrossValidationRecord(folds=self.folds, repeats=self.repeats, figures=figures)

    def to_json(self) -> bytes:
        """Figures, and the value of every fold by repeat; null where it is not defined."""
        values = {
            name: [[_finite(value) for value in row] for row in rows.tolist()]
            for name, rows in self.values.items()
        }
        document = self.record().model_dump() | {"values": values}
        return json.dumps(document, indent=1, allow_nan=False).encode() + b"\n"


def summarise(values: NDArray[np.float64]) -> Figure:
    """Mean, spread and standard error of a metric, or of a paired difference of two, [repeats, folds].

    The folds' models share training rows, so their results are not independent: the standard error is that
    of Nadeau & Bengio (Machine Learning 52, 2003), sqrt((1 / n + test rows / training rows) s^2) for n
    results of variance s^2, which Bouckaert & Frank (PAKDD 2004) recommend for repeated cross-validation.
    """
    folds = values.shape[1]
    defined = values[np.isfinite(values)]
    if defined.size < 2:
        return Figure(float(defined.mean()) if defined.size else math.nan, math.nan, math.nan, None)
    variance = float(defined.var(ddof=1))
    means = np.nanmean(values[~np.isnan(values).all(axis=1)], axis=1)
    return Figure(
        mean=float(defined.mean()),
        standard_error=math.sqrt((1.0 / defined.size + 1.0 / (folds - 1)) * variance),
        fold_std=math.sqrt(variance),
        repeat_std=float(means.std(ddof=1)) if len(means) > 1 else None,
    )


def cross_validate(
    table: Table,
    goal: Goal,
    config: TrainingConfig,
    folds: int,
    repeats: int,
    seed: np.random.SeedSequence,
    *,
    device: Device = "auto",
    on_epoch: OnEpoch = lambda epochs: (),
    checkpoints: CheckpointFolder | None = None,
) -> CrossValidation:
    """Fit one pipeline for each fold of each repeat, all in one fleet, and measure it on the fold left out.

    Everything is measured and chosen within the fold's training rows: scales, class weights, and the best
    epoch on a part of them. The folds follow from the seed and the table alone, so that two recipes can be
    compared fold by fold.

    Parameters
    ----------
    folds : int
        At least 2; stratified for classifiers.
    repeats : int
        With new folds and new initial weights each time.

    Raises
    ------
    ConfigError
        There are too few rows for as many folds, or training diverged.
    """
    parts = fit_folds(
        table,
        goal,
        config,
        folds,
        repeats,
        seed,
        device=device,
        on_epoch=on_epoch,
        checkpoints=checkpoints,
        stage="cross-validation",
    )
    found = [metrics_of(model.pipeline.predict(table.features[test]), goal, test) for model, test in parts]
    return CrossValidation(folds, repeats, _by_metric(found, (repeats, folds)))


def fit_folds(
    table: Table,
    goal: Goal,
    config: TrainingConfig,
    folds: int,
    repeats: int,
    seed: np.random.SeedSequence,
    *,
    stage: str,
    device: Device = "auto",
    on_epoch: OnEpoch = lambda epochs: (),
    checkpoints: CheckpointFolder | None = None,
) -> list[tuple[Fitted, NDArray[np.intp]]]:
    """What was fitted for each fold of each repeat, and the rows that the fold left out.

    See `cross_validate`; `stage` names the fleets' checkpoints and, in messages, the folds.
    """
    fold_seed, seed = derive(seed, 2)
    parts = make_folds(goal, folds, repeats, np.random.default_rng(fold_seed))
    fits = []
    for number, ((training, _), child) in enumerate(zip(parts, derive(seed, len(parts)), strict=True)):
        split_seed, fit_seed = derive(child, 2)
        split = split_rows(goal, config.validation, np.random.default_rng(split_seed), training)
        repeat, fold = divmod(number, folds)
        fits.append(Fit(split, config, fit_seed, f"{stage}, repeat {repeat + 1}, fold {fold + 1}"))
    fitted = fit_pipelines(
        table, goal, fits, device=device, on_epoch=on_epoch, checkpoints=checkpoints, stage=stage
    )
    for model in fitted:
        model.check_converged()
    return [(model, test) for model, (_, test) in zip(fitted, parts, strict=True)]


def make_folds(
    goal: Goal,
    folds: int,
    repeats: int,
    random: np.random.Generator,
    among: NDArray[np.intp] | None = None,
) -> list[tuple[NDArray[np.intp], NDArray[np.intp]]]:
    """Training and test rows of every fold, repeat by repeat; for classifiers, of each class alike.

    Parameters
    ----------
    among : ndarray, optional
        The rows to deal, ascending; all by default.

    Raises
    ------
    ConfigError
        There are fewer rows than folds.
    """
    among = np.arange(len(goal.values)) if among is None else among
    if folds > len(among):
        raise ConfigError(f"{folds} folds are too many for {len(among)} rows: give at most one for each row")
    parts = []
    for _ in range(repeats):
        dealt = random.permutation(among)
        if goal.is_classification:
            dealt = dealt[np.argsort(goal.values[dealt], kind="stable")]
        for fold in range(folds):
            test = np.sort(dealt[fold::folds])
            parts.append((np.setdiff1d(among, test), test))
    return parts


def _finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None


def _by_metric(
    found: Sequence[Mapping[str, float]], shape: tuple[int, int]
) -> dict[str, NDArray[np.float64]]:
    names = dict.fromkeys(name for metrics in found for name in metrics)
    return {
        name: np.array([metrics.get(name, math.nan) for metrics in found]).reshape(shape) for name in names
    }
