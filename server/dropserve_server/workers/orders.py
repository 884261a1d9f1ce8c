"""An administrator's orders on their way between workers: as JSON, and as what the server knows them by."""

from __future__ import annotations

import asyncio
import logging
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import astuple
from itertools import count
from typing import Any

from dropserve_server.administration import Administration
from dropserve_server.errors import InvalidRequest, LoadFailed, ModelNotFound, ServerError, Unavailable
from dropserve_server.logs import LOGGER
from dropserve_server.served import VersionStatus
from dropserve_server.shelf import Orders

_REFUSALS: dict[str, type[ServerError]] = {
    error.__name__: error for error in (LoadFailed, ModelNotFound, Unavailable)
}
_WORST_FIRST = ("failed", "loading", "unloaded", "serving")

log = logging.getLogger(LOGGER)


class Everybody:
    """Has an administrator's orders followed by every worker, this one included.

    Parameters
    ----------
    ask : callable
        Hands an order and its number to the supervisor, which answers by `answer`.
    """

    def __init__(self, ask: Callable[[int, list[Any]], None]) -> None:
        self._ask = ask
        self._numbers = count()
        self._awaited: dict[int, asyncio.Future[list[dict[str, Any]]]] = {}

    async def list_versions(self) -> list[VersionStatus]:
        """As `Administration.list_versions`; a version is serving where every worker serves it."""
        return await self._order("list_versions")

    async def reload(self) -> list[VersionStatus]:
        """As `Administration.reload`."""
        return await self._order("reload")

    async def load_model(self, name: str, version: str) -> list[VersionStatus]:
        """As `Administration.load_model`; what one of them can't load is served by none because of it."""
        return await self._order("load_model", name, version)

    async def unload_model(self, name: str, version: str) -> list[VersionStatus]:
        """As `Administration.unload_model`."""
        return await self._order("unload_model", name, version)

    def answer(self, number: int, outcomes: list[dict[str, Any]]) -> None:
        """Told what every worker said to an order."""
        self._awaited.pop(number).set_result(outcomes)

    async def _order(self, *what: str) -> list[VersionStatus]:
        number = next(self._numbers)
        answered = self._awaited[number] = asyncio.get_running_loop().create_future()
        self._ask(number, list(what))
        return _together(await answered)


async def follow(here: Administration, what: list[Any]) -> dict[str, Any]:
    """Follow an order in this process: what came of it, as JSON."""
    name, *arguments = what
    try:
        if name == "adopt":
            await here.adopt(read_orders(*arguments))
            return {"versions": []}
        versions = await getattr(here, name)(*arguments)
    except InvalidRequest as error:
        return {"error": InvalidRequest.__name__, "field": error.field, "message": str(error)}
    except ServerError as error:
        return {"error": type(error).__name__, "message": str(error)}
    except Exception as error:
        log.exception("order failed")
        return {"error": "", "message": repr(error)}
    return {"versions": [astuple(version) for version in versions]}


def write_orders(orders: Mapping[str, Orders]) -> dict[str, Any]:
    """Orders by model, as JSON."""
    return {
        name: {"withheld": one.withheld, "without": sorted(one.without), "pinned": sorted(one.pinned)}
        for name, one in orders.items()
    }


def read_orders(written: Mapping[str, Any]) -> dict[str, Orders]:
    """The same back."""
    return {
        name: Orders(one["withheld"], frozenset(one["without"]), frozenset(one["pinned"]))
        for name, one in written.items()
    }


def _together(outcomes: Sequence[Mapping[str, Any]]) -> list[VersionStatus]:
    """How versions stand with all workers: as with the one where they stand worst.

    Raises
    ------
    ServerError
        The first one's that could not follow the order.
    """
    for outcome in outcomes:
        if outcome.get("error") == InvalidRequest.__name__:
            raise InvalidRequest(outcome["field"], outcome["message"])
        if "error" in outcome:
            raise _REFUSALS.get(outcome["error"], RuntimeError)(outcome["message"])
    standings: defaultdict[tuple[str, int], list[VersionStatus]] = defaultdict(list)
    for outcome in outcomes:
        for fields in outcome["versions"]:
            status = VersionStatus(*fields)
            standings[status.name, status.version].append(status)
    return [
        _worst(standings[key], everywhere=len(standings[key]) == len(outcomes)) for key in sorted(standings)
    ]


def _worst(statuses: list[VersionStatus], *, everywhere: bool) -> VersionStatus:
    if not everywhere:  # some have not seen it yet
        statuses = [*statuses, VersionStatus(statuses[0].name, statuses[0].version, "unloaded")]
    worst = min(statuses, key=lambda status: (_WORST_FIRST.index(status.state), not status.reason))
    is_default = all(status.is_default for status in statuses)
    return VersionStatus(worst.name, worst.version, worst.state, worst.reason, is_default)
