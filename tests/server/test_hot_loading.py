"""How what is served follows its folder: looked at again and again, and never believed at first sight."""

from __future__ import annotations

from pathlib import Path

import pytest

from dropserve_models.errors import ArtifactError
from dropserve_server.errors import LoadFailed, ModelNotFound
from dropserve_server.repository import Repository
from support.fake_model import FakeModel
from support.hot_loading import live, looks
from support.shelf import Shelf, served


def test_a_new_version_takes_the_old_ones_place_once_it_has_looked_the_same_twice(tmp_path: Path) -> None:
    shelf = Shelf(tmp_path, "m/1")

    async def scenario(repository: Repository) -> None:
        shelf.put("m/2")
        await looks(repository, 1)
        assert served(repository) == [("m", "1", True)]
        shelf.put("m/2", "more of it")  # it was being copied
        await looks(repository, 1)
        assert served(repository) == [("m", "1", True)]
        assert shelf.loads == []
        await looks(repository, 1)
        assert served(repository) == [("m", "2", True)]
        await looks(repository, 3)
        assert shelf.loads == ["m/2"]
        with pytest.raises(ModelNotFound, match="no version 1 here; served: 2"):
            repository.find("m", "1")

    live(shelf, scenario)
    assert shelf.served_versions("m") == [2]
    assert shelf.told == [("m", True)] * len(shelf.told)


def test_a_new_model_is_served(tmp_path: Path) -> None:
    shelf = Shelf(tmp_path)

    async def scenario(repository: Repository) -> None:
        shelf.put("new/4")
        await looks(repository)
        assert served(repository) == [("new", "4", True)]

    live(shelf, scenario)
    assert shelf.told[-1] == ("new", True)


def test_other_content_under_the_same_number_is_another_version(tmp_path: Path) -> None:
    shelf = Shelf(tmp_path, "m/1")

    async def scenario(repository: Repository) -> None:
        old = repository.find("m")
        shelf.put("m/1", "other content")
        await looks(repository)
        assert repository.find("m") is not old
        assert repository.find("m", "1") is repository.find("m")

    live(shelf, scenario)
    assert shelf.loads == ["m/1"]
    assert shelf.served_versions("m") == [1]


def test_a_broken_version_replaces_nothing_and_is_not_tried_again_before_it_changes(tmp_path: Path) -> None:
    shelf = Shelf(tmp_path, "m/1")
    shelf.errors["m/2"] = ArtifactError("model.onnx is damaged")

    async def scenario(repository: Repository) -> None:
        shelf.put("m/2")
        await looks(repository, 5)
        assert served(repository) == [("m", "1", True)]
        assert shelf.loads == ["m/2"]
        assert shelf.sample("model_failed_versions", "m") == 1
        told = {status.version: (status.state, status.reason) for status in repository.statuses()}
        assert told == {1: ("serving", ""), 2: ("failed", "model.onnx is damaged")}
        del shelf.errors["m/2"]
        shelf.put("m/2", "mended")
        await looks(repository)
        assert served(repository) == [("m", "2", True)]
        assert shelf.sample("model_failed_versions", "m") == 0

    live(shelf, scenario)
    assert shelf.sample("model_load_failures_total", "m") == 1


def test_a_version_overwritten_by_a_broken_one_goes_on_from_memory(tmp_path: Path) -> None:
    shelf = Shelf(tmp_path, "m/1")

    async def scenario(repository: Repository) -> None:
        good = repository.find("m")
        shelf.errors["m/1"] = ArtifactError("half of it is missing")
        shelf.put("m/1", "half")
        await looks(repository, 4)
        assert repository.find("m") is good
        (status,) = repository.statuses()
        assert (status.state, status.reason) == ("serving", "half of it is missing")
        shelf.remove("m/1")
        (shelf.folder / "m/1").mkdir()
        await looks(repository, 4)
        assert repository.find("m") is good

    live(shelf, scenario)


def test_what_was_removed_is_unloaded_once_it_is_gone_twice(tmp_path: Path) -> None:
    shelf = Shelf(tmp_path, "m/1", "m/2", "other/1")

    async def scenario(repository: Repository) -> None:
        (shelf.folder / "m/2").rename(shelf.folder / "m/.2")  # somebody is exchanging it
        await looks(repository, 1)
        (shelf.folder / "m/.2").rename(shelf.folder / "m/2")
        await looks(repository, 3)
        assert served(repository)[0] == ("m", "2", True)
        assert shelf.loads == []
        shelf.remove("m/2")
        await looks(repository, 3)
        assert served(repository)[0] == ("m", "1", True)
        shelf.remove("m")
        await looks(repository, 1)
        assert len(repository) == 2
        await looks(repository, 1)
        assert served(repository) == [("other", "1", True)]
        with pytest.raises(ModelNotFound, match="there is no model 'm'; served: other"):
            repository.find("m")

    live(shelf, scenario)
    assert shelf.told[-1] == ("m", None)
    assert shelf.served_versions("m") == []
    assert shelf.sample("model_failed_versions", "m") is None


def test_the_last_version_that_works_is_kept_where_what_is_left_is_broken(tmp_path: Path) -> None:
    shelf = Shelf(tmp_path, "m/1", "m/2")
    shelf.errors["m/1"] = ArtifactError("damaged")

    async def scenario(repository: Repository) -> None:
        shelf.remove("m/2")
        await looks(repository, 4)
        assert served(repository) == [("m", "2", True)]

    live(shelf, scenario)


def test_a_repository_that_is_gone_for_a_while_unloads_nothing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    shelf = Shelf(tmp_path / "mount", "m/1", "n/1")
    away = tmp_path / "away"
    caplog.set_level("INFO", "dropserve")

    async def scenario(repository: Repository) -> None:
        before = served(repository)
        shelf.folder.rename(away)
        await looks(repository, 3)
        shelf.folder.mkdir()  # an empty mount point
        await looks(repository, 3)
        assert served(repository) == before
        with pytest.raises(LoadFailed, match="is empty"):
            await repository.reload()
        shelf.folder.rmdir()
        away.rename(shelf.folder)
        await looks(repository, 3)
        assert served(repository) == before

    live(shelf, scenario)
    assert shelf.loads == []
    told = [record.getMessage() for record in caplog.records if "repository" in record.getMessage()]
    assert told == ["repository unreadable", "repository unreadable", "repository readable again"]


def test_a_model_that_can_not_be_listed_stays_as_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shelf = Shelf(tmp_path, "m/1", "n/1")

    async def scenario(repository: Repository) -> None:
        before = served(repository)
        with monkeypatch.context() as patch:
            patch.setattr("dropserve_server.shelf.list_versions", lambda folder: _refuse(folder))
            await looks(repository, 3)
        assert served(repository) == before
        await looks(repository, 3)
        assert served(repository) == before

    live(shelf, scenario)
    assert shelf.loads == []
    assert shelf.sample("model_load_failures_total", "m") == 1


def _refuse(folder: Path) -> list[int]:
    raise ArtifactError(f"can't list {folder}: Stale file handle")


def test_a_folder_that_changes_while_it_is_read_is_not_served(tmp_path: Path) -> None:
    shelf = Shelf(tmp_path, "m/1")

    def load(folder: Path) -> FakeModel:
        if folder.name == "2" and len(shelf.loads) == 0:
            shelf.put("m/2", "the rest")
        return Shelf.load(shelf, folder)

    shelf.load = load  # type: ignore[method-assign]

    async def scenario(repository: Repository) -> None:
        shelf.put("m/2", "the beginning")
        await looks(repository)
        assert served(repository) == [("m", "1", True)]
        assert "changed while it was being read" in repository.statuses()[1].reason
        await looks(repository)
        assert served(repository) == [("m", "2", True)]

    live(shelf, scenario)
