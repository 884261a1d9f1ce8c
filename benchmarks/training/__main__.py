"""Many small networks trained as one, beside a plain loop: what a fit costs.

Both train the same recipes on the same folds, in turn, in one process. The tables are made up, in the shapes
of sonar (208 rows, 60 features, 2 classes) and energy (768 rows, 8 features); with --data FOLDER the real
ones are read from FOLDER/tabular/sonar.csv and FOLDER/uci_splits/energy.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from benchmarks.report import Report, interleave, option_parser
from benchmarks.training import data, plain
from benchmarks.training.recipes import DROPPED, EPOCHS, SONAR
from dropserve_models.training.config import TrainingConfig
from dropserve_models.training.crossvalidate import make_folds
from dropserve_models.training.metrics import metrics_of
from dropserve_models.training.pipelines import Fit, Fitted, fit_pipelines
from dropserve_models.training.split import Split
from dropserve_models.training.standardise import Scaling
from dropserve_models.training.table import Table
from dropserve_models.training.task import Goal, recognise

FOLDS, REPEATS = 10, 10

ENERGY = {
    "hidden": (100, 100),
    "hidden_drop": 0.00212,
    "max_norm": 3.07,
    "weight_decay": 0.0646,
    "learning_rate": 0.0117,
    "epochs": 333,
    "validation": 0.0,
    "batch_size": 32,
}
"""What a search of 20 trials chose before numbers levelled off, of the settings that take longest; today's
choice is printed by benchmarks.uncertainty --only energy."""


@dataclass(frozen=True, slots=True)
class Effort:
    """How long to measure: rounds, epochs of a sonar fit, and how many fits the plain loop does a round."""

    rounds: int
    epochs: int
    plain_fits: int


QUICK, FULL = Effort(2, 30, 2), Effort(3, EPOCHS, 4)


@dataclass(frozen=True, slots=True)
class Timed:
    """Seconds a fit, and the mean of a metric on the rows left out."""

    seconds: float
    score: float


def main(argv: Sequence[str] | None = None) -> int:
    """Measure and report."""
    parser = option_parser("training", __doc__)
    parser.add_argument("--threads", type=int, default=1, help="of torch; default: 1")
    parser.add_argument("--data", type=Path, metavar="FOLDER", help="where the real tables are")
    options = parser.parse_args(argv)
    torch.set_num_threads(options.threads)
    effort = QUICK if options.quick else FULL
    report = Report("training")
    for name, rates in DROPPED.items():
        config = TrainingConfig.from_mapping(SONAR | rates | {"epochs": effort.epochs})
        _sonar(report, name, config, effort, options.data)
    _energy(report, TrainingConfig.from_mapping(ENERGY), effort, options.data)
    print(f"{options.threads} threads. {'The real' if options.data else 'Made-up'} tables.\n")
    report.finish(options.json)
    return 0


def _sonar(report: Report, name: str, config: TrainingConfig, effort: Effort, folder: Path | None) -> None:
    table = data.sonar(folder)
    goal = recognise(table)
    classes = goal.values.astype(np.int64)
    folds = [Split(*part) for part in make_folds(goal, FOLDS, REPEATS, np.random.default_rng(0))]
    turn = iter(range(effort.rounds))
    x = torch.from_numpy(table.features)
    plain.fit(x, torch.from_numpy(classes), config.model_copy(update={"epochs": 2}), 2)  # loads torch.optim

    def loop() -> Timed:
        first = next(turn) * effort.plain_fits
        scores = []
        started = time.perf_counter()
        for split in folds[first : first + effort.plain_fits]:
            scaling = Scaling.of(table.features[split.training])
            x, y = torch.from_numpy(scaling.apply(table.features)), torch.from_numpy(classes)
            network = plain.fit(x[split.training], y[split.training], config, len(goal.output_names))
            with torch.no_grad():
                right = network(x[split.validation]).argmax(dim=1) == y[split.validation]
            scores.append(right.float().mean().item())
        return Timed((time.perf_counter() - started) / effort.plain_fits, float(np.mean(scores)))

    def fleet() -> Timed:
        started = time.perf_counter()
        found = [
            metrics_of(one.pipeline.predict(table.features[split.validation]), goal, split.validation)
            for one, split in zip(_fitted(table, goal, config, folds), folds, strict=True)
        ]
        seconds = time.perf_counter() - started
        return Timed(seconds / len(folds), float(np.mean([metrics["accuracy"] for metrics in found])))

    cases: dict[str, Callable[[], Timed]] = {"plain loop": loop, f"fleet of {len(folds)}": fleet}
    measured = interleave(cases, effort.rounds)
    reference = None
    for case, timed in measured.items():
        title = f"sonar, dropout {name}, {config.epochs} epochs: {case}"
        seconds = [1000 * one.seconds for one in timed]
        added = report.add(
            title, "time a fit", seconds, "ms", against=reference, times_faster=reference is not None
        )
        reference = reference or added
        report.add(title, "accuracy", [one.score for one in timed], "")


def _energy(report: Report, config: TrainingConfig, effort: Effort, folder: Path | None) -> None:
    table, splits = data.energy(folder)
    goal = recognise(table, "regression")
    seconds, rmse, likelihood = [], [], []
    for _ in range(effort.rounds):
        started = time.perf_counter()
        fitted = _fitted(table, goal, config, splits)
        seconds.append(time.perf_counter() - started)
        found = [
            metrics_of(one.pipeline.predict(table.features[split.validation]), goal, split.validation)
            for one, split in zip(fitted, splits, strict=True)
        ]
        rmse.append(float(np.mean([metrics["rmse"] for metrics in found])))
        likelihood.append(float(np.mean([metrics["log_likelihood"] for metrics in found])))
    title = f"energy, {config.epochs} epochs: fleet of {len(splits)}"
    report.add(title, "time for all splits", seconds, "s")
    report.add(title, "RMSE, without Monte Carlo", rmse, "")
    report.add(title, "log-likelihood, without Monte Carlo", likelihood, "nats")


def _fitted(table: Table, goal: Goal, config: TrainingConfig, splits: Sequence[Split]) -> list[Fitted]:
    """One model for each split, which learns from its training rows alone."""
    seeds = np.random.SeedSequence(0).spawn(len(splits))
    fits = [
        Fit(Split(split.training, split.training[:0]), config, seed)
        for split, seed in zip(splits, seeds, strict=True)
    ]
    return fit_pipelines(table, goal, fits, device="cpu")


if __name__ == "__main__":
    sys.exit(main())
