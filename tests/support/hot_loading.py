"""Scenarios in which a repository follows its folder."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from dropserve_server.policy import ModelPolicy
from dropserve_server.repository import Repository
from support.shelf import Shelf

SECONDS = 10.0


def live(
    shelf: Shelf,
    scenario: Callable[[Repository], Awaitable[None]],
    versions: str = "1",
    models: dict[str, ModelPolicy] | None = None,
) -> None:
    """Load the repository, and live the scenario."""

    async def life() -> None:
        repository = shelf.repository(versions, models)
        await repository.load(2, shelf.tell)
        shelf.told.clear()
        shelf.loads.clear()
        await asyncio.wait_for(scenario(repository), SECONDS)

    asyncio.run(life())


async def looks(repository: Repository, count: int = 2) -> None:
    for _ in range(count):
        await repository.refresh()
