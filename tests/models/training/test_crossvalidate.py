from __future__ import annotations

import json
import math
from typing import Any

import numpy as np
import pytest

from dropserve_models.errors import ConfigError
from dropserve_models.training.config import TrainingConfig
from dropserve_models.training.crossvalidate import CrossValidation, cross_validate, make_folds, summarise
from dropserve_models.training.randomness import derive
from dropserve_models.training.sources import read_table
from dropserve_models.training.table import Table, Target
from dropserve_models.training.task import Goal, recognise


def classes(*counts: int) -> Goal:
    values = np.repeat(np.arange(len(counts)), counts)
    return Goal(
        "multiclass", tuple("abcdefgh"[: len(counts)]), "", np.random.default_rng(0).permutation(values)
    )


@pytest.mark.parametrize("goal", [classes(97, 111), classes(20, 3, 2), classes(11, 11)])
@pytest.mark.parametrize("folds", [2, 5, 10])
def test_folds_are_stratified_and_cover_every_row_once_a_repeat(goal: Goal, folds: int) -> None:
    rows = len(goal.values)
    parts = make_folds(goal, folds, 3, np.random.default_rng(1))
    assert len(parts) == 3 * folds
    for repeat in range(3):
        tests = [test for _, test in parts[repeat * folds : (repeat + 1) * folds]]
        assert sorted(np.concatenate(tests)) == list(range(rows))
        counts = np.array([np.bincount(goal.values[test].astype(int), minlength=3) for test in tests])
        assert (np.ptp(counts, axis=0) <= 1).all()
        assert np.ptp(counts.sum(axis=1)) <= 1
    for training, test in parts:
        assert np.array_equal(np.union1d(training, test), np.arange(rows))
        assert not np.intersect1d(training, test).size
        assert set(goal.values[training]) == set(goal.values)
    assert not np.array_equal(parts[0][1], parts[folds][1])


def test_folds_of_numbers_are_random() -> None:
    goal = Goal("regression", ("y",), "", np.arange(20.0)[:, None])
    tests = [test for _, test in make_folds(goal, 4, 1, np.random.default_rng(0))]
    assert [len(test) for test in tests] == [5, 5, 5, 5]
    assert sorted(np.concatenate(tests)) == list(range(20))
    assert not np.array_equal(tests[0], np.arange(0, 20, 4))


def test_the_standard_error_is_corrected_for_shared_rows() -> None:
    values = np.array([[0.7, 0.9, 0.8], [0.6, 1.0, 0.65]])
    found = summarise(values)
    assert found.mean == pytest.approx(values.mean())
    assert found.fold_std == pytest.approx(values.std(ddof=1))
    assert found.repeat_std == pytest.approx(np.std([0.8, 0.75], ddof=1))
    # Nadeau & Bengio 2003: 6 results, each of a model that learned from 2 thirds and was tested on 1.
    assert found.standard_error == pytest.approx(math.sqrt((1 / 6 + 1 / 2) * values.var(ddof=1)))
    assert summarise(values[:1]).repeat_std is None


def test_the_standard_error_is_right() -> None:
    """Of a learner without shared luck, the mean of the training targets, over many tables."""
    random = np.random.default_rng(0)
    rows, folds, repeats = 40, 5, 4
    means, errors = [], []
    for _ in range(300):
        y = random.normal(size=rows)
        goal = Goal("regression", ("y",), "", y[:, None])
        parts = make_folds(goal, folds, repeats, random)
        values = [np.square(y[test] - y[training].mean()).mean() for training, test in parts]
        found = summarise(np.array(values).reshape(repeats, folds))
        means.append(found.mean)
        errors.append(found.standard_error)
    naive = np.mean(errors) / math.sqrt(1 + repeats * folds / (folds - 1))
    assert 0.8 < np.mean(errors) / np.std(means) < 1.25
    assert naive < 0.6 * np.std(means)


def test_figures_that_are_not_defined_everywhere() -> None:
    found = CrossValidation(2, 1, {"r2": np.array([[0.5, math.nan]]), "rmse": np.array([[1.0, 2.0]])})
    assert found.figures()["r2"].mean == 0.5
    document = json.loads(found.to_json())
    assert document["values"]["r2"] == [[0.5, None]]
    assert document["figures"]["r2"]["standard_error"] is None
    assert document["figures"]["rmse"]["mean"] == 1.5
    figure = summarise(np.array([[0.5, 0.7], [math.nan, math.nan]]))  # a repeat without any value
    assert figure.mean == pytest.approx(0.6)
    assert figure.repeat_std is None


def crossed(table: Table, folds: int = 3, repeats: int = 1, seed: int = 0, **options: Any) -> CrossValidation:
    config = TrainingConfig.from_mapping({"hidden": (8,), "epochs": 15, "learning_rate": 0.03} | options)
    return cross_validate(table, recognise(table), config, folds, repeats, np.random.SeedSequence(seed))


def test_classes() -> None:
    table = read_table("sklearn:iris")
    found = crossed(table, folds=5, repeats=2, epochs=60)
    assert found.values["accuracy"].shape == (2, 5)
    assert found.figures()["accuracy"].mean > 0.9
    again = crossed(table, folds=5, repeats=2, epochs=60)
    assert all(np.array_equal(again.values[name], values) for name, values in found.values.items())
    other = crossed(table, folds=5, repeats=2, seed=1, epochs=60)
    assert not np.array_equal(found.values["log_loss"], other.values["log_loss"])


@pytest.mark.parametrize("validation", [0.2, 0.0])
def test_nothing_is_learned_from_the_rows_left_out(validation: float) -> None:
    """Targets without any signal, one row of each fold beyond all measure."""
    random = np.random.default_rng(0)
    x = random.normal(size=(60, 3)).astype(np.float32)
    y = random.normal(size=60)
    found = crossed(table_of(x, y), validation=validation, loss="mse")
    assert found.figures()["r2"].mean < 0.2
    # What is left out decides on nothing, not even a scale: one fold's rows change, the same model comes out.
    goal = recognise(table_of(x, y))
    fold_seed = derive(np.random.SeedSequence(0), 2)[0]
    _, test = make_folds(goal, 3, 1, np.random.default_rng(fold_seed))[0]
    changed = y.copy()
    changed[test] += 100.0
    spoilt = crossed(table_of(x, changed), validation=validation, loss="mse")
    answers = found.values["rmse"][0, 0], spoilt.values["rmse"][0, 0]
    assert answers[1] == pytest.approx(100.0, abs=5.0)
    assert answers[0] < 3.0


def table_of(x: np.ndarray[Any, Any], y: np.ndarray[Any, Any]) -> Table:
    return Table(("a", "b", "c"), x, (Target("y", y),))


def test_two_recipes_are_compared_on_the_same_folds() -> None:
    table = read_table("sklearn:iris")
    one, other = crossed(table, hidden_drop=0.5), crossed(table, epochs=1)
    assert np.array_equal(one.values["majority_accuracy"], other.values["majority_accuracy"])
    goal = recognise(table)
    seeds = [np.random.default_rng(derive(np.random.SeedSequence(4), 2)[0]) for _ in range(2)]
    folds = [make_folds(goal, 3, 1, random) for random in seeds]
    assert all(np.array_equal(a[1], b[1]) for a, b in zip(*folds, strict=True))


def test_too_many_folds() -> None:
    with pytest.raises(ConfigError, match="151 folds are too many for 150 rows"):
        crossed(read_table("sklearn:iris"), folds=151)


def test_divergence_names_the_fold() -> None:
    with pytest.raises(
        ConfigError,
        match=r"epoch 1 of cross-validation, repeat 1, fold 1: .* lower learning_rate",
    ):
        crossed(read_table("sklearn:diabetes"), optimizer="sgd", learning_rate=1e9, loss="mse")
