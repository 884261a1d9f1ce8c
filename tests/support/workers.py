"""Workers and the relay between them, in one process."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, cast

from dropserve_server.administration import Administration
from dropserve_server.workers.handle import Handle
from dropserve_server.workers.orders import Everybody, follow, write_orders
from dropserve_server.workers.relay import Relay
from support.shelf import Shelf, served

SECONDS = 10.0


class Worker:
    """A worker of a repository of its own, in this process.

    Attributes
    ----------
    dies : bool
        Whether it does, instead of following the next order.
    followed : list of str
        The orders that it was to follow, by name.
    """

    def __init__(self, number: int, shelf: Shelf, members: list[Worker]) -> None:
        self.number = number
        self.shelf = shelf
        self.repository = shelf.repository()
        self.here = Administration(self.repository)
        self.dies = False
        self.followed: list[str] = []
        self._members = members
        self.everybody = Everybody(lambda order, what: self.relay.take(cast(Handle, self), order, what))
        self.relay: Relay

    @property
    def orders(self) -> dict[str, Any]:
        return write_orders(self.here.orders)

    async def follow(self, what: list[Any]) -> dict[str, Any] | None:
        self.followed.append(what[0])
        if self.dies:
            await asyncio.sleep(0)
            self._members.remove(self)
            return None
        return await follow(self.here, what)

    def answer(self, order: int, outcomes: list[dict[str, Any]]) -> None:
        self.everybody.answer(order, outcomes)


def live(folder: Path, scenario: Callable[[list[Worker]], Awaitable[None]], *versions: str) -> None:
    """Three workers of the same folder."""

    async def life() -> None:
        members: list[Worker] = []
        relay = Relay(lambda: cast(list[Handle], list(members)))
        for number in (1, 2, 3):
            worker = Worker(number, Shelf(folder, *versions), members)
            worker.relay = relay
            await worker.repository.load(1, worker.shelf.tell)
            members.append(worker)
        await asyncio.wait_for(scenario(members), SECONDS)

    asyncio.run(life())


def serving(workers: list[Worker]) -> list[list[tuple[str, str]]]:
    """The models and versions that each of them serves."""
    return [[model[:2] for model in served(worker.repository)] for worker in workers]
