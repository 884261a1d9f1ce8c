"""Training runs that choose their settings first."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dropserve_models import artifact
from dropserve_models.errors import CheckpointError, ConfigError
from dropserve_models.training.checkpoint import Checkpoint
from dropserve_models.training.job import Job
from dropserve_models.training.search.contest import Contest
from dropserve_models.training.search.ground import Ground
from dropserve_models.training.search.options import SearchOptions
from dropserve_models.training.search.search import search
from dropserve_models.training.trainer import train
from support.training import Killed, job


def searching(repository: Path, trials: int = 3, **options: Any) -> Job:
    return replace(job(repository, validation=0.0, **options), search=SearchOptions(trials=trials))


def test_a_search_is_told_of_in_the_artifact(tmp_path: Path) -> None:
    outcome = train(searching(tmp_path))
    found = outcome.found
    assert found is not None
    assert (outcome.folder / "search.json").read_bytes() == found.to_json()
    manifest = artifact.open_artifact(outcome.folder).manifest
    assert manifest is not None
    assert manifest.training is not None
    assert manifest.training.search == found.record()
    assert manifest.training.config == found.config.model_dump(mode="json")
    assert (found.config.hidden, found.config.epochs) == ((16,), 5)
    assert len(outcome.history.epochs) == 5
    assert outcome.metrics == {}


def test_a_search_does_not_see_the_rows_held_out(tmp_path: Path) -> None:
    first = train(replace(searching(tmp_path), config=job(tmp_path, validation=0.3).config))
    assert first.found is not None
    assert len(first.split.validation) == 45
    assert first.metrics["accuracy"] > 0.0
    assert [epoch.validation_loss for epoch in first.history.epochs] == [None] * 5
    seen = search(
        first.table,
        first.goal,
        job(tmp_path, validation=0.3).config,
        SearchOptions(trials=3),
        np.random.SeedSequence(0, spawn_key=(3,)),
        rows=first.split.training,
    )
    assert seen.config == first.found.config


def test_a_search_stands_alone(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="a search can't be combined with a cross-validation"):
        train(replace(searching(tmp_path), folds=3))
    assert not list(tmp_path.iterdir())


def test_a_search_interrupted_and_killed_in_training_goes_on_as_if_it_had_not_been(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = replace(searching(tmp_path / "repository"), checkpoint=tmp_path / "kept")
    expected = train(replace(whole, repository=tmp_path / "whole", checkpoint=None)).folder
    save = Checkpoint.save

    def killed(self: Checkpoint, state: Any) -> None:
        save(self, state)
        if self.path.name.startswith("search-3-1"):
            raise KeyboardInterrupt
        if self.path.name.startswith("fit-1"):  # of the best so far
            raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(Checkpoint, "save", killed)
        patch.setattr(Checkpoint, "due", lambda self: True)
        with pytest.raises(Killed):
            train(whole)
    names = {path.name.partition("-")[0] for path in (tmp_path / "kept").iterdir()}
    assert names == {"search.checkpoint.npz", "search", "fit"}
    with pytest.raises(CheckpointError, match="with other data, options, device or versions"):
        train(replace(whole, search=SearchOptions(trials=4)))
    found = train(whole).folder
    for name in ("model.onnx", "manifest.json", "metrics.json"):
        assert (found / name).read_bytes() == (expected / name).read_bytes()
    assert not (tmp_path / "kept").exists()


@pytest.mark.parametrize("step", ["trainer.fit_pipelines", "calibrate.fit_folds"])
def test_interrupted_in_training_it_says_what_the_search_chose(
    step: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(f"dropserve_models.training.{step}", interrupted)
    said: list[str] = []
    with pytest.raises(KeyboardInterrupt):
        train(searching(tmp_path, calibration="cv"), warn=said.append)
    assert len(said) == 1
    assert "the search had chosen --hidden 16" in said[0]
    assert not list(tmp_path.iterdir())


def test_a_search_judges_settings_calibrated_where_the_model_will_be(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # By the folds of all 150 rows, of which the search sees fewer than auto takes for enough.
    monkeypatch.setattr("dropserve_models.training.calibrate.FEW_ROWS", 100)
    asked: list[bool] = []
    lay_out = Ground.lay_out

    def spied(*arguments: Any, calibrates: bool) -> Ground:
        asked.append(calibrates)
        return lay_out(*arguments, calibrates=calibrates)

    monkeypatch.setattr(Ground, "lay_out", spied)
    config = job(tmp_path, validation=0.5, calibration="auto").config
    outcome = train(replace(searching(tmp_path), config=config))
    assert len(outcome.split.training) < 100
    assert outcome.calibration is not None
    assert asked == [outcome.calibration.temperature is not None] == [True]
    manifest = artifact.open_artifact(outcome.folder).manifest
    assert manifest is not None
    assert manifest.training is not None
    assert manifest.training.config["calibration"] == "auto"


def test_an_interrupted_search_is_trained_and_published(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    race = Contest.race

    def interrupted(self: Contest, *arguments: Any) -> None:
        race(self, *arguments)
        raise KeyboardInterrupt

    monkeypatch.setattr(Contest, "race", interrupted)
    said: list[str] = []
    outcome = train(searching(tmp_path, trials=8), warn=said.append)
    assert outcome.found is not None
    assert outcome.found.stopped == "interrupted"
    assert outcome.folder.name == "1"
    assert "search interrupted; now training with the best so far, --hidden 16" in said[0]
