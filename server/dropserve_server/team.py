"""What a server that is one of several workers tells the others' supervisor."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from dropserve_server.administration import Administers, Administration
from dropserve_server.shelf import Orders


class Team(Protocol):
    """The workers that a server is one of.

    Attributes
    ----------
    orders : mapping of str to Orders
        What an administrator had ordered when this one was started, by the name of the model.
    """

    orders: Mapping[str, Orders]

    def administered(self, here: Administration) -> Administers:
        """Told who follows orders here; who has them followed by every worker."""

    async def loaded(self) -> None:
        """Told that the models are loaded; the port may be opened when it returns."""

    def listening(self) -> None:
        """Told that the port is open."""

    def leaving(self, port: int) -> None:
        """Told that a port is about to be closed."""

    def report(self, health: Mapping[str, bool], failed: Mapping[str, list[int]]) -> None:
        """Told what is serving, and which versions of models could not be loaded, now and then."""
