"""Whether the temperature that is folded into a classifier makes it better calibrated on unseen rows."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from benchmarks.uncertainty.effort import Effort
from benchmarks.uncertainty.figures import Figures
from dropserve_models.evaluation.figure import Figure, calibration_figure, mean_figure
from dropserve_models.evaluation.metrics import log_probability
from dropserve_models.model import Model
from dropserve_models.training.calibrate import Calibrator
from dropserve_models.training.config import TrainingConfig
from dropserve_models.training.crossvalidate import make_folds
from dropserve_models.training.pipeline import Pipeline
from dropserve_models.training.pipelines import Fit, fit_pipelines
from dropserve_models.training.randomness import derive
from dropserve_models.training.sources import read_table
from dropserve_models.training.split import Rows, split_rows
from dropserve_models.training.table import Table
from dropserve_models.training.task import Goal, recognise
from dropserve_models.training.tuning import opened

TABLES = ("digits", "wine", "breast_cancer")
"""Of those bundled with scikit-learn, the classifiers'; iris is too small to tell."""

Probabilities = NDArray[np.float64]
STAGES = ("plain", "tempered")
MODES = ("deterministic", "Monte Carlo")


def measure(figures: Figures, data: Path, effort: Effort) -> None:
    """Each row is predicted once, by the model of the fold that has it out, before and after the temperature.

    The figures are of all rows of a table together, with the standard errors over them: in a single fold's
    few rows chance would dominate the ECE.
    """
    config = TrainingConfig() if effort.epochs is None else TrainingConfig(epochs=effort.epochs)
    for name in TABLES:
        table = read_table(f"sklearn:{name}")
        goal = recognise(table)
        figures.say(f"\n{name}: {table.rows} rows, {effort.folds} folds")
        answers = {
            (mode, stage): np.empty((table.rows, len(goal.output_names)))
            for mode in MODES
            for stage in STAGES
        }
        temperatures = []
        folds = make_folds(goal, effort.folds, 1, np.random.default_rng(0))
        for seed, (training, test) in enumerate(folds):
            pipelines, temperature = _fitted(*_rows_of(table, goal, training), config, seed)
            temperatures.append(temperature)
            for stage, pipeline in zip(STAGES, pipelines, strict=True):
                for mode, mean in zip(MODES, _asked(opened(pipeline), table, test, effort), strict=True):
                    answers[mode, stage][test] = mean
        figures.add(name, "temperature", temperatures)
        for mode in MODES:
            plain, tempered = (_figures(goal.values, answers[mode, stage]) for stage in STAGES)
            for measure_name, figure in plain.items():
                _add(figures, f"{name}, {mode}", f"{measure_name}, {STAGES[0]}", figure)
                _add(figures, f"{name}, {mode}", f"{measure_name}, {STAGES[1]}", tempered[measure_name])
                change = tempered[measure_name].minus(figure)
                assert change is not None
                _add(figures, f"{name}, {mode}", f"{measure_name}, change", change)


def _rows_of(table: Table, goal: Goal, rows: Rows) -> tuple[Table, Goal]:
    targets = tuple(replace(target, values=target.values[rows]) for target in table.targets)
    part = replace(table, features=table.features[rows], targets=targets)
    return part, replace(goal, values=goal.values[rows])


def _fitted(
    table: Table, goal: Goal, config: TrainingConfig, seed: int
) -> tuple[tuple[Pipeline, Pipeline], float]:
    """A model as `dropserve train` makes it, without and with its temperature, and the temperature."""
    split_seed, fit_seed, calibration_seed = derive(np.random.SeedSequence(seed), 3)
    calibrator = Calibrator(table, goal, config, calibration_seed)
    random = np.random.default_rng(split_seed)
    split = split_rows(goal, config.validation, random, calibrator.rows_to_learn_from)
    (fitted,) = fit_pipelines(table, goal, [Fit(split, config, fit_seed)], device="cpu")
    fitted.check_converged()
    calibrated = calibrator.calibrate(fitted, split.validation, device="cpu")
    assert calibrated.record is not None
    assert calibrated.record.temperature is not None
    return (fitted.pipeline, calibrated.pipeline), calibrated.record.temperature


def _asked(model: Model, table: Table, rows: Rows, effort: Effort) -> tuple[Probabilities, Probabilities]:
    """Probabilities in both modes."""
    features = table.features[rows]
    bars = model.predict(features, passes=effort.passes, seed=1)
    return model.predict(features).mean.astype(np.float64), bars.mean.astype(np.float64)


def _figures(classes: NDArray[np.generic], probabilities: Probabilities) -> dict[str, Figure]:
    known = classes.astype(np.int64)
    return {
        "log loss": mean_figure(-log_probability(known, probabilities)),
        "ECE": calibration_figure(known, probabilities),
    }


def _add(figures: Figures, case: str, measure_name: str, figure: Figure) -> None:
    assert figure.value is not None
    unit = "nats" if measure_name.startswith("log") else ""
    figures.add(case, measure_name, [figure.value], unit, standard_error=figure.standard_error)


CASES = {"calibration": measure}
