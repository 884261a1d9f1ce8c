"""An administrator's orders, passed on from the worker that was given them to all.

The supervisor has no port of its own for administrators: whichever worker the kernel gives their connection
to takes the order, as one server would, and asks for it to be followed. What an order says, and what comes of
it, is the workers' to know (`orders`).
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Any

from dropserve_server.logs import LOGGER
from dropserve_server.workers.handle import Handle

log = logging.getLogger(LOGGER)


class Relay:
    """Has orders followed by every worker, one after the other.

    Parameters
    ----------
    members : callable
        The workers that follow orders now, by number.
    """

    def __init__(self, members: Callable[[], list[Handle]]) -> None:
        self._members = members
        self._one_at_a_time = asyncio.Lock()
        self._under_way: set[asyncio.Future[None]] = set()
        self._held: dict[str, Any] = {}  # by the name of a model

    @property
    def orders(self) -> dict[str, Any]:
        """The orders that hold, for a worker that is to be like the others.

        What is being followed is not among them: until all have followed it, it may be taken back.
        """
        if not self._one_at_a_time.locked():
            self._forget_models_that_are_gone()
        return self._held

    def take(self, asking: Handle, number: int, what: list[Any]) -> None:
        """Have order `number` of a worker followed by all of them, and answer it then."""
        # To its end, even where who asks has gone: half an order would be an order that nobody gave.
        order = asyncio.ensure_future(self._pass_on(asking, number, what))
        self._under_way.add(order)
        order.add_done_callback(self._done)

    async def _pass_on(self, asking: Handle, number: int, what: list[Any]) -> None:
        if what[0] == "list_versions":  # to look is no order, and waits for none
            outcomes = await self._everybody(what)
        else:
            async with self._one_at_a_time:
                outcomes = await self._order(what)
        asking.answer(number, outcomes)

    async def _order(self, what: list[Any]) -> list[dict[str, Any]]:
        """Have an order followed by all, or taken back by those that could; what each says to it."""
        self._forget_models_that_are_gone()
        outcomes = await self._everybody(what)
        failed = ["error" in outcome for outcome in outcomes]
        if any(failed) and not all(failed):
            await self._everybody(["adopt", self._held])
        elif what[0] in ("load_model", "unload_model"):
            self._hold(what[1])
        return outcomes

    def _hold(self, model: str) -> None:
        """Note what is ordered of a model, now that all have followed an order, or failed to alike."""
        if members := self._members():
            said = {name: orders for name, orders in members[0].orders.items() if name == model}
            self._held = {name: orders for name, orders in self._held.items() if name != model} | said

    def _forget_models_that_are_gone(self) -> None:
        """Workers forget what was ordered of a model once it is in the repository no more."""
        if members := self._members():
            known = {name for worker in members for name in worker.orders}
            self._held = {name: orders for name, orders in self._held.items() if name in known}

    async def _everybody(self, what: list[Any]) -> list[dict[str, Any]]:
        """What every worker says to an order, those that come to be members meanwhile included."""
        asked: set[Handle] = set()
        outcomes: dict[int, dict[str, Any]] = {}
        while new := [worker for worker in self._members() if worker not in asked]:
            asked.update(new)
            said = await asyncio.gather(*(worker.follow(what) for worker in new))
            # One that has died meanwhile says nothing: its successor starts with the orders that hold then.
            outcomes |= {
                worker.number: outcome
                for worker, outcome in zip(new, said, strict=True)
                if outcome is not None
            }
        return [outcome for _, outcome in sorted(outcomes.items())]

    def _done(self, order: asyncio.Future[None]) -> None:
        self._under_way.discard(order)
        if not order.cancelled() and (error := order.exception()) is not None:
            log.error("order not passed on", exc_info=error)
