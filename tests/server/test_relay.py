"""Orders between workers and their supervisor."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import cast

import pytest

from dropserve_models.errors import ArtifactError
from dropserve_server.administration import Administration
from dropserve_server.errors import InvalidRequest, LoadFailed, ModelNotFound, Unavailable
from dropserve_server.shelf import Orders
from dropserve_server.workers.orders import read_orders
from support.shelf import Shelf
from support.workers import Worker, live, serving


def test_an_order_to_one_is_followed_by_all(tmp_path: Path) -> None:
    async def scenario(workers: list[Worker]) -> None:
        answer = await workers[1].everybody.load_model("m", "1")
        assert [(v.version, v.state, v.is_default) for v in answer] == [
            (1, "serving", False),
            (2, "serving", True),
        ]
        assert serving(workers) == [[("m", "1"), ("m", "2")]] * 3
        assert workers[0].relay.orders == {"m": {"withheld": False, "without": [], "pinned": [1]}}

    live(tmp_path, scenario, "m/1", "m/2")


def test_the_first_failure_is_told_and_nothing_is_kept(tmp_path: Path) -> None:
    async def scenario(workers: list[Worker]) -> None:
        await workers[0].everybody.unload_model("m", "")
        for number in (2, 3):
            workers[number - 1].shelf.errors["m/2"] = ArtifactError(f"no memory in {number}")
        for version in ("", "2"):
            with pytest.raises(LoadFailed, match=r"^version 2 can't be loaded: no memory in 2$"):
                await workers[2].everybody.load_model("m", version)
            assert serving(workers) == [[], [], []]
            assert [worker.here.orders for worker in workers] == [{"m": Orders(withheld=True)}] * 3
        assert "adopt" in workers[0].followed
        await workers[0].everybody.load_model("m", "1")
        assert [worker.here.orders for worker in workers] == [{"m": Orders(pinned=frozenset({1}))}] * 3

    live(tmp_path, scenario, "m/1", "m/2")


def test_refusals_are_what_they_were(tmp_path: Path) -> None:
    async def scenario(workers: list[Worker]) -> None:
        ask = workers[0].everybody
        with pytest.raises(ModelNotFound, match="no model 'x'; it has: m"):
            await ask.load_model("x", "")
        with pytest.raises(InvalidRequest, match="'0' is not a positive integer") as refusal:
            await ask.unload_model("m", "0")
        assert refusal.value.field == "version"
        late = Worker(0, Shelf(tmp_path), workers)  # not loaded
        workers.append(late)
        with pytest.raises(Unavailable, match="starting"):
            await ask.reload()
        workers[1].here = cast(Administration, None)  # a bug
        with pytest.raises(RuntimeError, match="NoneType"):
            await ask.list_versions()

    live(tmp_path, scenario, "m/1")


def test_how_versions_stand_is_told_of_the_worst(tmp_path: Path) -> None:
    async def scenario(workers: list[Worker]) -> None:
        workers[1].shelf.put("m/2")
        workers[2].shelf.errors["m/2"] = ArtifactError("damaged")
        await workers[1].here.reload()
        ask = workers[0].everybody
        assert [(v.version, v.state, v.is_default) for v in await ask.list_versions()] == [
            (1, "unloaded", False),
            (2, "unloaded", False),  # two have not looked yet
        ]
        assert [(v.version, v.state, v.reason, v.is_default) for v in await ask.reload()] == [
            (1, "unloaded", "", False),
            (2, "failed", "damaged", False),
        ]
        assert serving(workers) == [[("m", "2")], [("m", "2")], [("m", "1")]]

    live(tmp_path, scenario, "m/1")


def test_who_dies_is_not_waited_for_and_who_comes_is_asked_too(tmp_path: Path) -> None:
    async def scenario(workers: list[Worker]) -> None:
        relay, survivor = workers[0].relay, workers[1]
        workers[0].dies = True
        new = Worker(4, Shelf(tmp_path), workers)
        new.relay = relay
        await new.repository.load(1, new.shelf.tell)
        order = asyncio.ensure_future(survivor.everybody.unload_model("m", "2"))
        while not survivor.followed:
            await asyncio.sleep(0)
        await new.here.adopt(read_orders(relay.orders))
        workers.append(new)
        await order
        assert [worker.number for worker in workers] == [2, 3, 4]
        assert serving(workers) == [[("m", "1")]] * 3

    live(tmp_path, scenario, "m/1", "m/2")


def test_orders_are_passed_on_one_after_the_other(tmp_path: Path) -> None:
    async def scenario(workers: list[Worker]) -> None:
        one, two, three = workers
        await asyncio.gather(
            one.everybody.load_model("m", "1"),
            two.everybody.unload_model("m", ""),
            three.everybody.load_model("m", ""),
        )
        assert serving(workers) == [[("m", "2")]] * 3
        assert one.followed == two.followed == three.followed == ["load_model", "unload_model", "load_model"]

    live(tmp_path, scenario, "m/1", "m/2")
