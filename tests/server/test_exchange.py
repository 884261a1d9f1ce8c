"""How versions are exchanged and models are found, whatever their folder does meanwhile."""

from __future__ import annotations

import asyncio
import gc
import shutil
import threading
import weakref
from pathlib import Path

import numpy as np
import pytest

from dropserve_models.errors import DeviceError, MonteCarloUnavailable
from dropserve_server import shelf as state
from dropserve_server.errors import ModelNotFound
from dropserve_server.policy import ModelPolicy, VersionPolicy
from dropserve_server.repository import Repository
from support.fake_model import FakeModel
from support.hot_loading import SECONDS, live, looks
from support.shelf import Shelf, served


def test_the_old_version_answers_until_the_new_one_is_ready(tmp_path: Path) -> None:
    shelf, gate, entered = Shelf(tmp_path, "m/1"), threading.Event(), threading.Event()

    def load(folder: Path) -> FakeModel:
        if folder.name == "2":
            entered.set()
            assert gate.wait(SECONDS)
        return Shelf.load(shelf, folder)

    shelf.load = load  # type: ignore[method-assign]

    async def scenario(repository: Repository) -> None:
        shelf.put("m/2")
        await looks(repository, 1)
        look = asyncio.ensure_future(repository.refresh())
        await asyncio.to_thread(entered.wait, SECONDS)
        assert repository.find("m").version == "1"
        assert repository.busy
        assert [status.state for status in repository.statuses()] == ["serving", "loading"]
        gate.set()
        await look
        assert repository.find("m").version == "2"
        assert not repository.busy

    live(shelf, scenario)


def test_monte_carlo_stays_prepared_where_it_was(tmp_path: Path) -> None:
    shelf = Shelf(tmp_path, "asked/1", "unasked/1")

    async def scenario(repository: Repository) -> None:
        shelf.models["asked/1"].prepare_monte_carlo()  # as its first such request does
        shelf.put("asked/2")
        shelf.put("unasked/2")
        await looks(repository)
        assert len(repository) == 2

    live(shelf, scenario)
    assert shelf.models["asked/2"].prepared == 1
    assert shelf.models["unasked/2"].prepared == 0


def test_a_model_whose_engine_disagrees_is_served_without_monte_carlo(tmp_path: Path) -> None:
    shelf = Shelf(tmp_path, "m/1")

    def load(folder: Path) -> FakeModel:
        model = Shelf.load(shelf, folder)

        def refuse() -> None:
            model.monte_carlo_unavailable = "it differs"
            raise MonteCarloUnavailable("it differs")

        model.prepare_monte_carlo = refuse  # type: ignore[method-assign]
        return model

    shelf.load = load  # type: ignore[method-assign]
    assert served(shelf.open(warm_up=True)) == [("m", "1", True)]


def test_a_device_that_is_lost_later_is_a_failure_like_others(tmp_path: Path) -> None:
    shelf = Shelf(tmp_path, "m/1")
    shelf.errors["m/2"] = DeviceError("no CUDA")

    async def scenario(repository: Repository) -> None:
        shelf.put("m/2")
        await looks(repository, 3)
        assert served(repository) == [("m", "1", True)]
        assert repository.statuses()[1].reason == "no CUDA"

    live(shelf, scenario)


def test_single_models_have_policies_and_defaults_of_their_own(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    shelf = Shelf(tmp_path, "a/1", "a/2", "a/3", "b/1", "b/2", "c/1")
    policies = {
        "a": ModelPolicy(VersionPolicy.parse("all"), default=2),
        "b": ModelPolicy(VersionPolicy.parse("only:1")),
        "c": ModelPolicy(VersionPolicy(), default=7),
        "typo": ModelPolicy(),
    }

    async def scenario(repository: Repository) -> None:
        assert served(repository) == [
            ("a", "1", False),
            ("a", "2", True),
            ("a", "3", False),
            ("b", "1", True),
            ("c", "1", False),
        ]
        with pytest.raises(ModelNotFound, match="'c' has no default version that is served; served: 1"):
            repository.find("c")
        shelf.put("c/7")
        await looks(repository)
        assert repository.find("c").version == "7"
        shelf.put("c/8")
        await looks(repository)
        assert [version for name, version, _ in served(repository) if name == "c"] == ["7", "8"]
        assert repository.find("c").version == "7"

    live(shelf, scenario, models=policies)
    (record,) = [r for r in caplog.records if "settings name a model" in r.getMessage()]
    assert vars(record)["model"] == "typo"


def test_watching_goes_on_after_a_bug(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    shelf = Shelf(tmp_path, "m/1")

    async def scenario(repository: Repository) -> None:
        real = repository._put
        faults = iter([ZeroDivisionError("oops")])

        def put(name: str, shelf: state.Shelf) -> None:
            if fault := next(faults, None):
                raise fault
            real(name, shelf)

        repository._put = put  # type: ignore[method-assign]
        watching = asyncio.ensure_future(repository.watch(0.01))
        shelf.put("m/2")
        while repository.find("m").version != "2":
            await asyncio.sleep(0.01)
        watching.cancel()

    live(shelf, scenario)
    assert "repository not looked through" in [record.getMessage() for record in caplog.records]


def test_without_an_interval_nobody_looks(tmp_path: Path) -> None:
    shelf = Shelf(tmp_path, "m/1")

    async def scenario(repository: Repository) -> None:
        shelf.put("m/2")
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(repository.watch(0), 0.1)
        assert repository.find("m").version == "1"

    live(shelf, scenario)
    assert shelf.loads == []


def test_names_on_the_wire_never_touch_the_file_system(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    outside = tmp_path / "outside"
    (outside / "1").mkdir(parents=True)
    shelf = Shelf(tmp_path / "repository", "m/1")

    async def scenario(repository: Repository) -> None:
        with monkeypatch.context() as patch:
            for function in ("stat", "lstat", "open", "scandir", "listdir"):
                patch.setattr(f"os.{function}", _never)
            for name in ("../outside", str(outside), "m/../m", "m\0", "."):
                with pytest.raises(ModelNotFound):
                    repository.find(name)

    live(shelf, scenario)


def _never(*_: object) -> None:
    raise AssertionError("a look-up touched the file system")


def test_the_folder_of_a_removed_repository_is_not_needed_to_answer(tmp_path: Path) -> None:
    shelf = Shelf(tmp_path / "repository", "m/1")

    async def scenario(repository: Repository) -> None:
        shutil.rmtree(shelf.folder)
        await looks(repository, 3)
        assert repository.find("m").version == "1"

    live(shelf, scenario)


def test_the_old_version_goes_with_the_last_request_that_holds_it(tmp_path: Path) -> None:
    shelf = Shelf(tmp_path, "m/1")

    async def scenario(repository: Repository) -> None:
        request = repository.find("m")
        gone = weakref.ref(request)
        shelf.put("m/2")
        await looks(repository)
        assert repository.find("m") is not request
        assert request.model.run(np.ones((1, 3), np.float32)).mean.shape == (1, 2)
        del request
        while gone() is not None:  # the thread that has loaded the new one may not have ended yet
            await asyncio.sleep(0.01)

    gc.disable()
    try:
        live(shelf, scenario)
    finally:
        gc.enable()
