"""``dropserve evaluate`` in this process, and what it is asked about."""

from __future__ import annotations

import argparse
import shutil
from pathlib import Path

import polars as pl
from sklearn.datasets import load_diabetes, load_iris

from dropserve_models import evaluate_cli
from dropserve_models.training.config import TrainingConfig
from dropserve_models.training.job import Job
from dropserve_models.training.trainer import train

FAST = TrainingConfig(epochs=3, hidden=(8,), calibration="none")
CALIBRATED = FAST.model_copy(update={"calibration": "cv"})


def run(*arguments: str) -> int:
    parser = argparse.ArgumentParser(prog="dropserve")
    evaluate_cli.register(parser.add_subparsers(dest="command", required=True))
    args = parser.parse_args(["evaluate", *arguments])
    status = args.run(args)
    assert isinstance(status, int)
    return status


def make_tables_and_models(folder: Path) -> None:
    """Tables, and a repository: two equal versions of a regression, a classifier, one without dropout."""
    diabetes = load_diabetes(scaled=False)
    table = pl.DataFrame(diabetes.data, list(diabetes.feature_names))
    table = table.with_columns(progression=diabetes.target)
    table.head(300).write_csv(folder / "train.csv")
    # In another order, and with a column that no model takes.
    test = table.tail(142).with_columns(name=pl.lit("somebody"))
    test.select(reversed(test.columns)).write_csv(folder / "test.csv")
    iris = load_iris()
    flowers = pl.DataFrame(iris.data, ["a", "b", "c", "d"])
    flowers = flowers.with_columns(kind=pl.Series(iris.target_names[iris.target].tolist())).sample(
        fraction=1, shuffle=True, seed=1
    )
    flowers.head(100).write_csv(folder / "iris.csv")
    flowers.tail(50).write_csv(folder / "iris_test.csv")
    repository = folder / "repository"
    train(Job(str(folder / "train.csv"), "diabetes", repository, ("progression",), config=CALIBRATED))
    shutil.copytree(repository / "diabetes" / "1", repository / "diabetes" / "2")
    train(Job(str(folder / "iris.csv"), "iris", repository, ("kind",), config=CALIBRATED))
    plain = FAST.model_copy(update={"hidden_drop": (0.0,)})
    train(Job(str(folder / "iris.csv"), "plain", repository, ("kind",), config=plain))
