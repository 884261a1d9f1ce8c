"""An administrator's orders, passed on from the worker that was given them to all.

The supervisor has no port of its own for administrators: whichever worker the kernel gives their connection
to takes the order, as one server would, and asks for it to be followed. What an order says, and what comes of
it, is the workers' to know (`orders`).
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from contextlib import nullcontext
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
        self._kept: dict[str, Any] = {}

    @property
    def orders(self) -> dict[str, Any]:
        """The orders that hold, for a worker that is to be like the others."""
        for worker in self._members():
            self._kept = worker.orders
            break
        return self._kept

    def take(self, asking: Handle, number: int, what: list[Any]) -> None:
        """Have order `number` of a worker followed by all of them, and answer it then."""
        # To its end, even where who asks has gone: half an order would be an order that nobody gave.
        order = asyncio.ensure_future(self._pass_on(asking, number, what))
        self._under_way.add(order)
        order.add_done_callback(self._done)

    async def _pass_on(self, asking: Handle, number: int, what: list[Any]) -> None:
        # To look is no order, and waits for none.
        async with self._one_at_a_time if what[0] != "list_versions" else nullcontext():
            before = self.orders
            outcomes = await self._everybody(what)
            failed = ["error" in outcome for outcome in outcomes]
            if any(failed) and not all(failed):
                # Who could follow it is to be like those who could not.
                await self._everybody(["adopt", before])
        asking.answer(number, outcomes)

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
