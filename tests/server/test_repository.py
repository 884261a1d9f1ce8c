"""Which models are served, which versions of them, and what is said about the rest."""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path

import pytest

from dropserve_models.errors import ArtifactError, DeviceError
from dropserve_server.errors import InvalidRequest, ModelNotFound, Unavailable
from dropserve_server.repository import Repository
from support.fake_model import FakeModel
from support.shelf import Shelf, served

SECONDS = 10.0


def test_the_latest_version_of_every_model_is_served(tmp_path: Path) -> None:
    repository = Shelf(tmp_path, "b/9", "b/10", "a/1").open()
    assert served(repository) == [("a", "1", True), ("b", "10", True)]
    assert repository.find("b") is repository.find("b", "10")
    assert len(repository) == 2


def test_several_versions_are_served_when_asked_for(tmp_path: Path) -> None:
    repository = Shelf(tmp_path, "b/2", "b/9", "b/10").open("2")
    assert served(repository) == [("b", "9", False), ("b", "10", True)]
    assert repository.find("b").version == "10"
    assert repository.find("b", "9").version == "9"


def test_a_broken_version_does_not_take_a_good_ones_place(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    shelf = Shelf(tmp_path, "m/1", "m/2", "m/3")
    shelf.errors["m/3"] = ArtifactError("model.onnx is damaged")
    repository = shelf.open()
    assert served(repository) == [("m", "2", True)]
    assert "m/1" not in shelf.models
    assert shelf.sample("model_load_failures_total", "m") == 1
    (record,) = [r for r in caplog.records if r.getMessage() == "model failed to load"]
    assert (vars(record)["model"], vars(record)["version"]) == ("m", 3)
    assert vars(record)["reason"] == "model.onnx is damaged"
    assert record.exc_info is None


def test_a_model_that_fails_is_not_served_and_the_others_are(tmp_path: Path) -> None:
    shelf = Shelf(tmp_path, "bad/1", "good/1")
    shelf.errors["bad/1"] = ArtifactError("no")
    repository = shelf.open()
    assert served(repository) == [("good", "1", True)]
    with pytest.raises(ModelNotFound, match="'bad' could not be loaded; the server's log says why"):
        repository.find("bad")
    assert sorted(shelf.told[:2]) == [("bad", False), ("good", False)]
    assert sorted(shelf.told[2:]) == [("bad", False), ("good", True)]


def test_a_bug_while_loading_is_logged_with_its_trace(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    shelf = Shelf(tmp_path, "bad/1", "good/1")
    shelf.errors["bad/1"] = ZeroDivisionError("oops")
    assert served(shelf.open()) == [("good", "1", True)]
    (record,) = [r for r in caplog.records if r.getMessage() == "model failed to load"]
    assert record.exc_info


def test_a_missing_device_is_no_models_fault(tmp_path: Path) -> None:
    shelf = Shelf(tmp_path, "a/1", "b/1")
    shelf.errors["b/1"] = DeviceError("no CUDA")
    with pytest.raises(DeviceError, match="no CUDA"):
        shelf.open()
    assert shelf.sample("model_load_failures_total", "b") is None


def test_a_folder_that_cannot_be_listed_is_told(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError):
        Shelf(tmp_path / "missing").open()


def test_warm_up_prepares_monte_carlo_where_there_is_one(tmp_path: Path) -> None:
    shelf = Shelf(tmp_path, "m/1")
    shelf.open()
    assert shelf.models["m/1"].prepared == 0
    shelf.open(warm_up=True)
    assert shelf.models["m/1"].prepared == 1


def test_while_loading_nothing_is_declared_missing(tmp_path: Path) -> None:
    shelf, gate = Shelf(tmp_path, "fast/1", "slow/1"), threading.Event()

    def load(folder: Path) -> FakeModel:
        if folder.parent.name == "slow":
            assert gate.wait(SECONDS)
        return shelf.load(folder)

    async def scenario() -> None:
        repository = Repository(tmp_path, load, shelf.metrics)
        fast = asyncio.Event()
        loading = asyncio.ensure_future(repository.load(2, lambda name, up: fast.set() if up else None))
        await asyncio.wait_for(fast.wait(), SECONDS)
        assert repository.loading
        assert repository.find("fast").name == "fast"
        with pytest.raises(Unavailable, match="starting"):
            repository.find("slow")
        gate.set()
        await asyncio.wait_for(loading, SECONDS)
        assert not repository.loading
        assert repository.find("slow").name == "slow"

    asyncio.run(scenario())


@pytest.mark.parametrize(
    ("name", "version", "message"),
    [
        ("x", "", "there is no model 'x'; served: a, b"),
        ("x\n\u202e", "", r"there is no model 'x\\n\\u202e'"),
        ("x" * 1000, "", "x{128}\\.\\.\\.'; served"),
        ("a", "3", "model 'a' has no version 3 here; served: 1, 2"),
    ],
)
def test_what_is_missing_is_named_beside_what_there_is(
    tmp_path: Path, name: str, version: str, message: str
) -> None:
    repository = Shelf(tmp_path, "a/1", "a/2", "b/1").open("5")
    with pytest.raises(ModelNotFound, match=message):
        repository.find(name, version)


@pytest.mark.parametrize("version", ["0", "-1", "01", "1.0", "latest", " 1", "1" * 30, "²"])
def test_versions_are_positive_integers(tmp_path: Path, version: str) -> None:
    with pytest.raises(InvalidRequest, match="not a positive integer") as refusal:
        Shelf(tmp_path, "a/1").open().find("a", version)
    assert refusal.value.field == "version"


def test_a_request_must_name_its_model(tmp_path: Path) -> None:
    with pytest.raises(InvalidRequest, match="no model is named; served: a") as refusal:
        Shelf(tmp_path, "a/1").open().find("")
    assert refusal.value.field == "model"


def test_long_lists_are_cut(tmp_path: Path) -> None:
    repository = Shelf(tmp_path, *(f"m{i:02}/1" for i in range(13))).open()
    with pytest.raises(ModelNotFound, match=r"m08, m09 and 3 more$"):
        repository.find("x")


def test_an_empty_folder_serves_nothing(tmp_path: Path) -> None:
    repository = Shelf(tmp_path).open()
    assert not repository
    with pytest.raises(ModelNotFound, match="served: none"):
        repository.find("x")
