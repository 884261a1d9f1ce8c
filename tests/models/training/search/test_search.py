from __future__ import annotations

import itertools
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dropserve_models.errors import ConfigError
from dropserve_models.training.arrays import table_from_arrays
from dropserve_models.training.config import TrainingConfig
from dropserve_models.training.search import ground, space
from dropserve_models.training.search import search as search_module
from dropserve_models.training.search.board import Trial
from dropserve_models.training.search.found import Found
from dropserve_models.training.search.ground import Ground
from dropserve_models.training.search.journal import Attempt, Journal
from dropserve_models.training.search.options import SearchOptions
from dropserve_models.training.search.report import report, settings
from dropserve_models.training.search.search import search
from dropserve_models.training.sources import read_table
from dropserve_models.training.table import Table
from dropserve_models.training.task import recognise


def noisy(rows: int = 60, features: int = 20) -> Table:
    """A line through one feature, noise, and features of no use: to be learned by heart without dropout."""
    random = np.random.default_rng(0)
    X = random.normal(size=(rows, features))
    y = X[:, :1] + random.normal(size=(rows, 1))
    return table_from_arrays(X, y, tuple(f"x{i}" for i in range(features)), ("y",))


def find(table: Table, trials: int | None = 6, seconds: float | None = None, **options: Any) -> Found:
    metric = options.pop("metric", None)
    rows = options.pop("rows", None)
    config = TrainingConfig.from_mapping({"hidden": (8,), "epochs": 4, "batch_size": 16} | options)
    return search(
        table,
        recognise(table),
        config,
        SearchOptions(seconds, trials, metric),
        np.random.SeedSequence(1),
        rows=rows,
        device="cpu",
    )


def test_the_same_seed_finds_the_same() -> None:
    first, second = find(noisy()), find(noisy())
    assert first.config == second.config
    assert replace(first, seconds=0.0).to_json() == replace(second, seconds=0.0).to_json()
    assert first.stopped == "trials"
    assert len(first.trials) == 2 + 6  # without dropout, and as given, beside


def test_the_best_so_far_is_tried_in_every_shape(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(space, "HIDDEN", ((8,), (4,)))
    monkeypatch.setattr(space, "STEPS", (15, 21))
    config = TrainingConfig.from_mapping({"batch_size": 16})
    table = noisy()
    found = search(
        table, recognise(table), config, SearchOptions(None, 30), np.random.SeedSequence(1), device="cpu"
    )
    explored, others = found.trials[2:17], found.trials[17:22]  # a third of the rest

    def options(trial: Trial) -> dict[str, Any]:
        return trial.config.model_dump(exclude=set(space.SHAPE_OPTIONS))

    def shape(trial: Trial) -> tuple[tuple[int, ...], int]:
        return trial.config.hidden, trial.config.epochs

    assert len({shape(trial) for trial in others}) == 5
    assert {epochs for _, epochs in map(shape, explored)} == {5, 7}
    assert {epochs for _, epochs in map(shape, others)} == {5, 7, 14}
    assert all(options(trial) == options(others[0]) for trial in others)
    assert any(options(trial) == options(others[0]) for trial in explored)


def test_nothing_is_tried_twice_but_on_new_folds_half_of_those_that_do_best_at_a_time() -> None:
    found = find(noisy(), trials=20)
    configs = [trial.config for trial in found.trials[2:]]
    assert len(set(configs)) == len(configs) == 20
    tried_on = [sum(5 * repeat in trial.scores for trial in found.trials) for repeat in range(4)]
    assert tried_on == [22, 8, 4, 2]
    assert found.repeats == 4


def test_where_there_is_little_to_choose_all_of_it_is_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(space, "HIDDEN", ((8,), (4,)))
    given = {"input_drop": 0.0, "hidden_drop": 0.1, "weight_decay": 0.1, "learning_rate": 0.01, "epochs": 3}
    table = noisy()
    config = TrainingConfig.from_mapping(given | {"max_norm": 3.0, "batch_size": 16})
    found = search(
        table, recognise(table), config, SearchOptions(None, 20), np.random.SeedSequence(1), device="cpu"
    )
    assert {trial.config.hidden for trial in found.trials} == {(8,), (4,)}
    assert found.stopped == "trials"


def test_rows_that_it_may_not_see_change_nothing() -> None:
    table, rows = noisy(), np.arange(0, 60, 2)
    spoilt = table.features.copy()
    spoilt[1::2] = 1e6
    values = table.targets[0].values.copy()
    values[1::2] = -1e6
    other = Table(table.feature_names, spoilt, (replace(table.targets[0], values=values),))
    seen, unseen = find(table, rows=rows), find(other, rows=rows)
    assert seen.config == unseen.config
    assert replace(seen, seconds=0.0).to_json() == replace(unseen, seconds=0.0).to_json()


def test_it_says_that_a_network_overfits_and_finds_what_helps() -> None:
    found = find(noisy(120, 30), trials=6, hidden=(50,), epochs=60, learning_rate=0.02)
    assert found.verdict == "overfits"
    assert found.gap.mean > 0
    assert found.gain.mean > 0
    assert found.figure(found.chosen.scores).mean > found.figure(found.baseline.scores).mean
    assert found.repeats > 1
    assert found.config.validation == 0.0
    assert found.config.hidden_drop[0] > 0.0
    assert (found.config.hidden, found.config.epochs, found.config.learning_rate) == ((50,), 60, 0.02)
    text = "\n".join(report(found))
    assert "it overfits" in text
    assert settings(found) in text
    assert "--hidden 50" in text


def test_settings_are_told_as_the_command_line_takes_them() -> None:
    found = find(noisy(), trials=1, hidden_drop=0.25, input_drop=0.0, weight_decay=1e-7)
    config = found.config.model_copy(update={"epochs": 1_234_567, "hidden": (), "max_norm": None})
    assert settings(replace(found, config=config)) == (
        f"--hidden none --input-drop 0 --hidden-drop 0.25 --weight-decay 1e-07 "
        f"--learning-rate {config.learning_rate:g} --epochs 1234567 --batch-size 16"
    )


def test_what_is_kept_of_it() -> None:
    found = find(noisy())
    document = json.loads(found.to_json())
    assert document["config"] == found.config.model_dump(mode="json")
    assert [trial["trial"] for trial in document["trials"]] == list(range(8))
    chosen = document["trials"][document["chosen"]["trial"]]
    assert chosen["options"]["hidden_drop"] == list(found.config.hidden_drop)
    values = [one["log_likelihood"] for one in chosen["scores"].values()]
    assert document["chosen"]["log_likelihood"]["mean"] == pytest.approx(np.mean(values))
    record = found.record()
    assert record.verdict == found.verdict
    assert record.chosen.mean == document["chosen"]["log_likelihood"]["mean"]


@pytest.mark.parametrize(
    ("data", "options", "metric"),
    [
        ("sklearn:iris", {}, "log_likelihood"),
        ("sklearn:iris", {"metric": "accuracy"}, "accuracy"),
        ("sklearn:linnerud", {"metric": "rmse"}, "rmse"),
        ("sklearn:linnerud", {"loss": "mse"}, "rmse"),
        ("sklearn:linnerud", {"hidden": ()}, "log_likelihood"),
    ],
)
def test_tasks_and_metrics(data: str, options: dict[str, Any], metric: str) -> None:
    found = find(read_table(data), trials=3, **options)
    assert found.metric == metric
    assert all(metric in scores for scores in found.chosen.scores.values())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"metric": "accuracy"}, "regression is judged by log_likelihood or rmse"),
        ({"metric": "log_likelihood", "loss": "mse"}, "regression with loss mse is judged by rmse"),
        ({"schedule": "plateau"}, "schedule plateau"),
        ({"learning_rate": 1e30, "epochs": 2}, "diverged"),
    ],
)
def test_what_can_not_be_searched(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        find(noisy(), **options)


def test_a_search_in_time_ends_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """By a clock of its own, on which every look takes .1 s: the machine's other work takes no part."""
    looks = itertools.count()
    monkeypatch.setattr(search_module, "Journal", lambda kept: Journal(kept, lambda: 0.1 * next(looks)))
    found = find(noisy(), trials=None, seconds=10.0, epochs=5)
    assert found.stopped == "time"
    assert len(found.trials) > 3
    # Most of the time is used. Beyond it goes no more than looking at what is done.
    assert 6.0 < found.seconds < 11.0


def test_too_little_time_is_told() -> None:
    with pytest.raises(
        ConfigError, match="too short for this table: the first two settings could not be tried"
    ):
        find(noisy(), trials=None, seconds=1e-6)
    with pytest.raises(
        ConfigError, match=r"the first two settings take about [\d.e+]+ seconds; give it several"
    ):
        find(noisy(), trials=None, seconds=0.3, epochs=5000)


def test_settings_that_diverge_are_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(space, "FASTEST", 1e30)
    found = find(noisy(), trials=8)
    diverged = [trial for trial in found.trials if trial.diverged]
    assert diverged
    assert found.chosen not in diverged
    assert f"({len(diverged)} diverged)" in report(found)[0]


def interrupting(monkeypatch: pytest.MonkeyPatch, after: int) -> None:
    calls = 0
    fit = Ground.fit

    def interrupted(self: Ground, *arguments: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls > after:
            raise KeyboardInterrupt
        return fit(self, *arguments)

    monkeypatch.setattr(ground.Ground, "fit", interrupted)


@pytest.mark.parametrize("after", [2, 3, 5])
def test_interrupted_it_leaves_its_best_so_far(monkeypatch: pytest.MonkeyPatch, after: int) -> None:
    interrupting(monkeypatch, after)
    found = find(noisy(), trials=20)
    assert found.stopped == "interrupted"
    assert found.chosen.scores
    assert "interrupted" in report(found)[0]


@pytest.mark.parametrize("after", [0, 1])
def test_interrupted_before_anything_can_be_chosen_it_has_nothing(
    monkeypatch: pytest.MonkeyPatch, after: int
) -> None:
    interrupting(monkeypatch, after)
    with pytest.raises(KeyboardInterrupt):
        find(noisy())


def test_interrupted_while_the_second_attempt_is_kept_it_knows_the_gap_all_the_same(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    keep, calls = Journal.keep, itertools.count(1)

    def interrupted(self: Journal, asked: Any, attempt: Attempt) -> None:
        if next(calls) == 2:
            raise KeyboardInterrupt
        keep(self, asked, attempt)

    monkeypatch.setattr(Journal, "keep", interrupted)
    found = find(noisy())
    assert found.stopped == "interrupted"
    assert [trial.number for trial in found.trials] == [0, 1]
    assert found.record().gap.mean > 0.0
    assert "nan" not in "".join(report(found))


@pytest.mark.parametrize("options", [{"embedding_width": 0}, {"embedding_width": 2}])
def test_columns_of_categories_and_missing_values(tmp_path: Path, options: dict[str, Any]) -> None:
    lines = [f"{'abcd'[i % 4]},{i / 7 if i % 5 else ''},{(i * 7) % 10 + i % 4}" for i in range(80)]
    (tmp_path / "table.csv").write_text("\n".join(["kind,size,y", *lines]) + "\n")
    found = find(read_table(str(tmp_path / "table.csv"), ("y",)), trials=3, task="regression", **options)
    assert len(found.chosen.scores) >= 5
