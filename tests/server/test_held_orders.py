"""Which of an administrator's orders hold, for workers that are to be like the others."""

from __future__ import annotations

import asyncio
import shutil
from pathlib import Path
from typing import Any

import pytest

from dropserve_models.errors import ArtifactError
from dropserve_server.administration import Administration
from dropserve_server.errors import LoadFailed, Unavailable
from dropserve_server.repository import Repository
from dropserve_server.shelf import Orders
from dropserve_server.workers.orders import read_orders, write_orders
from support.shelf import Shelf, served
from support.workers import Worker, live, serving


def held_back(worker: Worker) -> asyncio.Event:
    """Have a worker follow orders only once the event is set, and refuse to be looked at."""
    gate, follow_there = asyncio.Event(), worker.follow

    async def follow(what: list[Any]) -> dict[str, Any] | None:
        if what[0] == "list_versions":
            return {"error": "Unavailable", "message": "not now"}
        await gate.wait()
        return await follow_there(what)

    worker.follow = follow  # type: ignore[method-assign]
    return gate


def test_orders_hold_once_they_are_followed_by_all(tmp_path: Path) -> None:
    async def scenario(workers: list[Worker]) -> None:
        relay, last = workers[0].relay, workers[2]
        gate = held_back(last)
        last.shelf.errors["m/1"] = ArtifactError("no memory")
        order = asyncio.ensure_future(workers[1].everybody.load_model("m", "1"))
        while not workers[0].orders:
            await asyncio.sleep(0.001)
        assert relay.orders == {}, "it may be taken back"
        gate.set()
        with pytest.raises(LoadFailed):
            await order
        assert relay.orders == {}

    live(tmp_path, scenario, "m/1", "m/2")


def test_what_fails_alike_with_all_holds_as_with_one(tmp_path: Path) -> None:
    """What the policy wants can't be loaded; still an earlier order is dropped."""

    async def scenario(workers: list[Worker]) -> None:
        await workers[0].everybody.load_model("m", "1")
        for worker in workers:
            worker.shelf.errors["m/3"] = ArtifactError("damaged")
        workers[0].shelf.put("m/3")
        with pytest.raises(LoadFailed, match="damaged"):
            await workers[1].everybody.load_model("m", "")
        assert workers[0].relay.orders == workers[2].orders == {}

    live(tmp_path, scenario, "m/1", "m/2")


def test_looking_while_an_order_is_followed_takes_nothing_back(tmp_path: Path) -> None:
    async def scenario(workers: list[Worker]) -> None:
        last, ask = workers[2], workers[0].everybody
        gate = held_back(last)
        order = asyncio.ensure_future(workers[1].everybody.load_model("m", "1"))
        while not workers[0].orders:
            await asyncio.sleep(0.001)
        with pytest.raises(Unavailable, match="not now"):
            await ask.list_versions()
        gate.set()
        await order
        assert "adopt" not in workers[0].followed
        assert serving(workers) == [[("m", "1"), ("m", "2")]] * 3

    live(tmp_path, scenario, "m/1", "m/2")


def test_who_comes_while_an_order_is_followed_begins_without_it(tmp_path: Path) -> None:
    """It is asked to follow it as well, and not left with it where it is taken back."""

    async def scenario(workers: list[Worker]) -> None:
        relay, last = workers[0].relay, workers[2]
        await workers[0].everybody.unload_model("n", "")
        gate = held_back(last)
        last.shelf.errors["m/1"] = ArtifactError("no memory")
        order = asyncio.ensure_future(workers[1].everybody.load_model("m", "1"))
        while len(workers[0].orders) < 2:
            await asyncio.sleep(0.001)
        new = Worker(4, Shelf(tmp_path), workers)
        new.relay = relay
        await new.repository.load(1, new.shelf.tell)
        await new.here.adopt(read_orders(relay.orders))
        workers.append(new)
        gate.set()
        with pytest.raises(LoadFailed):
            await order
        assert new.followed == ["load_model", "adopt"]
        assert [worker.here.orders for worker in workers] == [{"n": Orders(withheld=True)}] * 4
        assert relay.orders == write_orders({"n": Orders(withheld=True)})

    live(tmp_path, scenario, "m/1", "m/2", "n/1")


def test_what_was_ordered_of_a_model_that_is_gone_is_forgotten(tmp_path: Path) -> None:
    async def scenario(workers: list[Worker]) -> None:
        relay = workers[0].relay
        for name in ("m", "n"):
            await workers[0].everybody.unload_model(name, "")
        shutil.rmtree(tmp_path / "m")
        for worker in workers:
            assert sorted(relay.orders) == ["m", "n"], "some know it still"
            await worker.here.reload()
        assert sorted(relay.orders) == ["n"]

    live(tmp_path, scenario, "m/1", "n/1")


def test_one_that_can_not_hold_to_the_orders_takes_them_from_nobody(tmp_path: Path) -> None:
    async def scenario(workers: list[Worker]) -> None:
        relay = workers[0].relay
        await workers[1].everybody.load_model("m", "1")
        workers[0] = new = Worker(1, Shelf(tmp_path / "seen late", "n/1"), workers)
        new.relay = relay
        await new.repository.load(1, new.shelf.tell)
        await new.here.adopt(read_orders(relay.orders))
        assert new.orders == {}
        assert relay.orders == {"m": {"withheld": False, "without": [], "pinned": [1]}}

    live(tmp_path, scenario, "m/1", "m/2")


def test_orders_outlive_the_workers(tmp_path: Path) -> None:
    async def scenario(workers: list[Worker]) -> None:
        relay = workers[0].relay
        await workers[1].everybody.unload_model("m", "")
        workers.clear()
        assert relay.orders == {"m": {"withheld": True, "without": [], "pinned": []}}

    live(tmp_path, scenario, "m/1", "m/2")


def test_a_successor_starts_with_the_orders_that_hold(tmp_path: Path) -> None:
    orders = {
        "m": Orders(without=frozenset({3, 2}), pinned=frozenset({1})),
        "n": Orders(withheld=True),
        "gone": Orders(withheld=True),
    }
    assert read_orders(write_orders(orders)) == orders
    shelf = Shelf(tmp_path, "m/1", "m/2", "m/3", "m/4", "n/1")

    async def life() -> None:
        repository = Repository(tmp_path, shelf.load, shelf.metrics, orders=orders)
        await repository.load(1, shelf.tell)
        assert sorted(shelf.loads) == ["m/1", "m/4"]
        assert repository.orders == {"m": orders["m"], "n": orders["n"]}
        administration = Administration(repository)
        await administration.adopt({"n": Orders(without=frozenset({1})), "gone": Orders(withheld=True)})
        assert served(repository) == [("m", "4", True)]
        assert administration.orders == {"n": Orders(without=frozenset({1}))}

    asyncio.run(life())
