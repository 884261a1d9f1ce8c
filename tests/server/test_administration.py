"""What administrators order, and what comes of it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from dropserve_models.errors import ArtifactError
from dropserve_server.administration import Administration
from dropserve_server.errors import InvalidRequest, LoadFailed, ModelNotFound, Unavailable
from dropserve_server.repository import Repository
from support.shelf import Shelf, served

SECONDS = 10.0


def live(shelf: Shelf, scenario: Callable[[Repository, Administration], Awaitable[None]]) -> None:
    async def life() -> None:
        repository = shelf.repository()
        await repository.load(2, shelf.tell)
        shelf.loads.clear()
        await asyncio.wait_for(scenario(repository, Administration(repository)), SECONDS)

    asyncio.run(life())


def test_a_new_version_is_loaded_at_once(tmp_path: Path) -> None:
    shelf = Shelf(tmp_path, "m/1", "n/1")

    async def scenario(repository: Repository, administration: Administration) -> None:
        shelf.put("m/2")
        versions = await administration.load_model("m")
        assert [(v.version, v.state, v.is_default) for v in versions] == [
            (1, "unloaded", False),
            (2, "serving", True),
        ]
        assert served(repository) == [("m", "2", True), ("n", "1", True)]
        await administration.load_model("m")
        assert shelf.loads == ["m/2"]

    live(shelf, scenario)


def test_an_old_version_is_served_beside_the_latest_until_told_otherwise(tmp_path: Path) -> None:
    shelf = Shelf(tmp_path, "m/1", "m/2")

    async def scenario(repository: Repository, administration: Administration) -> None:
        await administration.load_model("m", "1")
        assert served(repository) == [("m", "1", False), ("m", "2", True)]
        await repository.refresh()
        shelf.put("m/3")
        await administration.reload()
        assert served(repository) == [("m", "1", False), ("m", "3", True)]
        await administration.load_model("m")
        assert served(repository) == [("m", "3", True)]

    live(shelf, scenario)


def test_unloading_the_latest_goes_back_to_the_one_before(tmp_path: Path) -> None:
    shelf = Shelf(tmp_path, "m/1", "m/2")

    async def scenario(repository: Repository, administration: Administration) -> None:
        await administration.unload_model("m", "2")
        assert served(repository) == [("m", "1", True)]
        for _ in range(3):
            await repository.refresh()
        await administration.reload()
        assert served(repository) == [("m", "1", True)]
        await administration.load_model("m", "2")
        assert repository.find("m").version == "2"

    live(shelf, scenario)


def test_a_version_that_can_not_be_replaced_is_unloaded_all_the_same(tmp_path: Path) -> None:
    shelf = Shelf(tmp_path, "m/1", "m/2", "only/1")
    shelf.errors["m/1"] = ArtifactError("damaged")

    async def scenario(repository: Repository, administration: Administration) -> None:
        await administration.unload_model("m", "2")
        await administration.unload_model("only", "1")
        for _ in range(3):
            await repository.refresh()
        assert served(repository) == []

    live(shelf, scenario)


def test_an_unloaded_model_stays_so_until_it_is_loaded(tmp_path: Path) -> None:
    shelf = Shelf(tmp_path, "m/1")

    async def scenario(repository: Repository, administration: Administration) -> None:
        (status,) = await administration.unload_model("m")
        assert status.state == "unloaded"
        assert shelf.told[-1] == ("m", False)
        with pytest.raises(ModelNotFound, match="model 'm' has been unloaded"):
            repository.find("m")
        shelf.put("m/2")
        for _ in range(3):
            await repository.refresh()
        assert len(await administration.reload()) == 2
        assert len(repository) == 0
        await administration.unload_model("m")  # once more is no error
        await administration.load_model("m")
        assert served(repository) == [("m", "2", True)]

    live(shelf, scenario)
    assert shelf.served_versions("m") == [2]


def test_what_can_not_be_loaded_is_told_and_changes_nothing(tmp_path: Path) -> None:
    shelf = Shelf(tmp_path, "m/1")
    shelf.errors["m/2"] = ArtifactError("model.onnx is damaged")

    async def scenario(repository: Repository, administration: Administration) -> None:
        shelf.put("m/2")
        for _ in range(2):  # tried again whenever it is ordered
            with pytest.raises(LoadFailed, match=r"^version 2 can't be loaded: model.onnx is damaged$"):
                await administration.load_model("m")
        with pytest.raises(LoadFailed, match="damaged"):
            await administration.load_model("m", "2")
        assert shelf.loads == ["m/2"] * 3
        assert served(repository) == [("m", "1", True)]
        del shelf.errors["m/2"]
        assert [v.state for v in await administration.reload()] == ["unloaded", "serving"]
        await administration.load_model("m", "1")  # the failed order for 2 was not kept
        assert served(repository) == [("m", "1", False), ("m", "2", True)]

    live(shelf, scenario)


def test_an_unloaded_model_that_can_not_be_loaded_stays_unloaded(tmp_path: Path) -> None:
    shelf = Shelf(tmp_path, "m/1")

    async def scenario(repository: Repository, administration: Administration) -> None:
        await administration.unload_model("m")
        shelf.errors["m/1"] = ArtifactError("damaged")
        with pytest.raises(LoadFailed, match="damaged"):
            await administration.load_model("m")
        del shelf.errors["m/1"]
        await administration.reload()
        assert len(repository) == 0
        shelf.put("m/2")
        shelf.errors["m/2"] = ArtifactError("damaged too")
        with pytest.raises(LoadFailed, match="damaged too"):
            await administration.load_model("m", "2")
        assert len(repository) == 0  # though 1 would load now

    live(shelf, scenario)


def test_unknown_names_and_versions(tmp_path: Path) -> None:
    outside = tmp_path / "outside" / "1"
    outside.mkdir(parents=True)
    shelf = Shelf(tmp_path / "repository", "m/1")

    async def scenario(_: Repository, administration: Administration) -> None:
        for name in ("x", "", "../outside", str(outside.parent), "m/.", "m\0", "x" * 10_000):
            for order in (administration.load_model, administration.unload_model):
                with pytest.raises(ModelNotFound, match=r"the repository has no model .*; it has: m$"):
                    await order(name)
        with pytest.raises(ModelNotFound, match="no version 9 in the repository; there is: 1"):
            await administration.load_model("m", "9")
        with pytest.raises(ModelNotFound, match="'m' has no version 9 here; served: 1"):
            await administration.unload_model("m", "9")
        for version in ("0", "latest", "../1"):
            for order in (administration.load_model, administration.unload_model):
                with pytest.raises(InvalidRequest, match="not a positive integer") as refusal:
                    await order("m", version)
                assert refusal.value.field == "version"

    live(shelf, scenario)
    assert shelf.loads == []


def test_orders_wait_for_the_start(tmp_path: Path) -> None:
    async def life() -> None:
        administration = Administration(Shelf(tmp_path, "m/1").repository())
        for order in (administration.reload(), administration.load_model("m")):
            with pytest.raises(Unavailable, match="starting"):
                await order

    asyncio.run(life())


def test_orders_given_at_once_are_followed_one_after_the_other(tmp_path: Path) -> None:
    shelf = Shelf(tmp_path, "m/1", "m/2")

    async def scenario(repository: Repository, administration: Administration) -> None:
        await asyncio.gather(
            administration.load_model("m", "1"),
            administration.unload_model("m"),
            administration.load_model("m"),
        )
        assert served(repository) == [("m", "2", True)]

    live(shelf, scenario)
