from __future__ import annotations

import itertools
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dropserve_models.errors import CheckpointError
from dropserve_models.training.arrays import table_from_arrays
from dropserve_models.training.checkpoint import Checkpoint, CheckpointFolder
from dropserve_models.training.config import TrainingConfig
from dropserve_models.training.fleet import Arrays
from dropserve_models.training.search import search as search_module
from dropserve_models.training.search.found import Found
from dropserve_models.training.search.ground import Ground
from dropserve_models.training.search.journal import Attempt, Journal
from dropserve_models.training.search.options import SearchOptions
from dropserve_models.training.search.search import search
from dropserve_models.training.task import recognise
from support.training import Killed


def find(folder: Path | None, **bounds: Any) -> Found:
    random = np.random.default_rng(0)
    X = random.normal(size=(60, 3))
    table = table_from_arrays(X, X[:, :1] + random.normal(size=(60, 1)), ("a", "b", "c"), ("y",))
    return search(
        table,
        recognise(table),
        TrainingConfig.from_mapping({"hidden": (8,), "epochs": 4, "batch_size": 16, "calibration": "none"}),
        SearchOptions(**bounds),
        np.random.SeedSequence(1),
        device="cpu",
        checkpoints=None if folder is None else CheckpointFolder(folder, {"this": "run"}),
    )


@pytest.fixture
def attempts(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Numbers of settings in each attempt that was really made."""
    fit = Ground.fit
    made: list[int] = []

    def counted(self: Ground, trials: Any, *arguments: Any) -> Any:
        made.append(len(trials))
        return fit(self, trials, *arguments)

    monkeypatch.setattr(Ground, "fit", counted)
    return made


def killed_before_attempt(number: int, monkeypatch: pytest.MonkeyPatch, folder: Path, **bounds: Any) -> None:
    fit, calls = Ground.fit, itertools.count(1)

    def killed(self: Ground, *arguments: Any) -> Any:
        if next(calls) == number:
            raise Killed
        return fit(self, *arguments)

    with monkeypatch.context() as patches:
        patches.setattr(Ground, "fit", killed)
        with pytest.raises(Killed):
            find(folder, **bounds)


def comparable(found: Found) -> bytes:
    return replace(found, seconds=0.0).to_json()


def test_a_search_that_was_killed_finds_the_same_and_fits_nothing_twice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, attempts: list[int]
) -> None:
    expected = find(None, trials=6)
    undisturbed, attempts[:] = list(attempts), []
    assert len(undisturbed) > 6
    for number in (1, 2, 2, 3):  # by then 5 attempts are known
        killed_before_attempt(number, monkeypatch, tmp_path, trials=6)
    assert comparable(find(tmp_path, trials=6)) == comparable(expected)
    assert attempts == undisturbed
    assert [path.name for path in tmp_path.iterdir()] == ["search.checkpoint.npz"]

    attempts.clear()
    assert comparable(find(tmp_path, trials=6)) == comparable(expected)
    assert attempts == []


@pytest.mark.parametrize("saves", [3, 12])
def test_killed_amid_a_fit_it_goes_on_from_an_epoch_of_it(
    saves: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save, count = Checkpoint.save, itertools.count(1)

    def killed(self: Checkpoint, state: Arrays) -> None:
        save(self, state)
        if next(count) == saves:
            raise Killed

    monkeypatch.setattr(Checkpoint, "due", lambda self: True)
    with monkeypatch.context() as patches:
        patches.setattr(Checkpoint, "save", killed)
        with pytest.raises(Killed):
            find(tmp_path, trials=4)
    fleets = [path for path in tmp_path.iterdir() if path.name != "search.checkpoint.npz"]
    assert len(fleets) == 1
    assert comparable(find(tmp_path, trials=4)) == comparable(find(None, trials=4))
    assert [path.name for path in tmp_path.iterdir()] == ["search.checkpoint.npz"]


@pytest.mark.parametrize("number", [4])
def test_a_search_in_time_goes_on_by_its_own_clock(
    number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, attempts: list[int]
) -> None:
    """Every look at the clock takes a quarter of a second: what was done is the same, and nothing is lost."""

    def journal(checkpoints: CheckpointFolder | None) -> Journal:
        looks = itertools.count(next(starts))
        return Journal(checkpoints, lambda: 0.25 * next(looks))

    starts = itertools.count(0, 1_000_000)  # each process has a clock of its own
    monkeypatch.setattr(search_module, "Journal", journal)
    expected = find(None, seconds=16.0)
    assert expected.stopped == "time"
    undisturbed, attempts[:] = list(attempts), []
    killed_before_attempt(number, monkeypatch, tmp_path, seconds=16.0)
    found = find(tmp_path, seconds=16.0)
    assert comparable(found) == comparable(expected)
    assert attempts == undisturbed
    assert found.seconds == expected.seconds


def attempt(score: float) -> Attempt:
    return Attempt({(0, 3): {"rmse": score}}, {(0, 3): {"rmse": 0.1}}, (1,), 0.5)


def test_what_comes_after_another_way_is_forgotten(tmp_path: Path) -> None:
    folder = CheckpointFolder(tmp_path, {})
    journal = Journal(folder)
    for number in range(3):
        journal.clock()
        assert journal.recall([number]) is None
        journal.keep([number], attempt(number))

    again = Journal(CheckpointFolder(tmp_path, {}))
    again.clock()
    assert again.recall([0]) == attempt(0)
    again.keep([0], attempt(0))
    folder.open("search-2-1").save({})  # of the fleet that the other way has here
    assert again.recall(["another"]) is None
    assert folder.open("search-2-1").load() is None
    again.keep(["another"], attempt(9))

    third = Journal(CheckpointFolder(tmp_path, {}))
    for asked, expected in [([0], attempt(0)), (["another"], attempt(9)), ([2], None)]:
        assert third.recall(asked) == expected
        third.keep(asked, expected or attempt(0))


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{}",
        b"[1, 2]",
        b'{"readings": 3, "attempts": []}',
        b'{"readings": [null], "attempts": []}',
        b'{"readings": [], "attempts": [null]}',
        b'{"readings": [], "attempts": [[[], {"scores": 1}]]}',
        b'{"readings": [], "attempts": [[[], {"scores": [[[], 0, {}]], "on_training": []}]]}',
    ],
)
def test_a_damaged_journal_is_told(content: bytes, tmp_path: Path) -> None:
    folder = CheckpointFolder(tmp_path, {})
    folder.open("search").save({"journal": np.frombuffer(content, np.uint8)})
    line = f"{tmp_path}/search.checkpoint.npz is no checkpoint of a search, or damaged: remove it"
    with pytest.raises(CheckpointError, match=f"^{re.escape(line)}$"):
        Journal(folder)
