"""What a server that is one of several workers tells the others' supervisor."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol


class Team(Protocol):
    """The workers that a server is one of."""

    async def loaded(self) -> None:
        """Told that the models are loaded; the port may be opened when it returns."""

    def listening(self) -> None:
        """Told that the port is open."""

    def leaving(self) -> None:
        """Told that the port is about to be closed."""

    def report(self, health: Mapping[str, bool]) -> None:
        """Told what is serving, now and then."""
