"""What an administrator may ask of the repository. Nothing here knows of gRPC."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Protocol

from dropserve_models.listing import is_version
from dropserve_server.catalogue import LATEST, listed, shown
from dropserve_server.errors import InvalidRequest, LoadFailed, ModelNotFound
from dropserve_server.logs import LOGGER
from dropserve_server.repository import Repository
from dropserve_server.served import VersionStatus
from dropserve_server.shelf import Orders, Shelf

log = logging.getLogger(LOGGER)


class Administers(Protocol):
    """Who follows an administrator's orders: one process, or all that serve together."""

    async def list_versions(self) -> list[VersionStatus]:
        """Every version in the repository."""

    async def reload(self) -> list[VersionStatus]:
        """Look through the repository now."""

    async def load_model(self, name: str, version: str) -> list[VersionStatus]:
        """Serve a version, or a model."""

    async def unload_model(self, name: str, version: str) -> list[VersionStatus]:
        """Serve a version, or a model, no longer."""


class Administration:
    """Follows them in this process. They hold until others are given, or the server ends."""

    def __init__(self, repository: Repository) -> None:
        self._repository = repository

    @property
    def orders(self) -> dict[str, Orders]:
        """What has been ordered and holds, by the name of the model."""
        return self._repository.orders

    async def adopt(self, orders: Mapping[str, Orders]) -> None:
        """Hold to these orders instead of those given so far, as far as the repository lets it."""
        for name in sorted({*orders, *self.orders}):
            wanted = orders.get(name, Orders())
            if wanted != self.orders.get(name, Orders()):
                try:
                    await self._repository.order(name, lambda _, wanted=wanted: wanted)  # type: ignore[misc]
                except (LoadFailed, ModelNotFound) as error:
                    log.warning("order not followed", extra={"model": name, "reason": str(error)})

    async def list_versions(self) -> list[VersionStatus]:
        """Every version in the repository, by name and version, ascending."""
        return self._repository.statuses()

    async def reload(self) -> list[VersionStatus]:
        """Serve what is in the folder now, and try again what has failed; the versions afterwards.

        Raises
        ------
        LoadFailed
            The folder can't be listed, or is empty where models of it are served.
        Unavailable
            The models are still being loaded for the first time.
        """
        await self._repository.reload()
        return self._repository.statuses()

    async def load_model(self, name: str, version: str = LATEST) -> list[VersionStatus]:
        """Serve a version beside what the policy wants; without one, what the policy wants and no more.

        Returns
        -------
        list of VersionStatus
            Of this model.

        Raises
        ------
        ModelNotFound
            The repository has no such model or version.
        InvalidRequest
            The version is not a positive integer.
        LoadFailed
            A version could not be loaded. What was served before still is; where no version was named, and
            one is served, without what earlier orders added to the policy's.
        Unavailable
            The models are still being loaded for the first time.
        """
        number = _number(version)

        def fulfilled(shelf: Shelf) -> bool:
            return bool(shelf.loaded) if number is None else number in shelf.loaded

        shelf = await self._repository.order(name, lambda orders: orders.loading(number), fulfilled)
        if number is not None and number not in shelf.present:
            there = listed([str(present) for present in sorted(shelf.present)])
            raise ModelNotFound(
                f"model {shown(name)} has no version {number} in the repository; there is: {there}"
            )
        failed = sorted(shelf.failed if number is None else {number} & shelf.failed.keys())
        if failed or not fulfilled(shelf):
            reasons = [
                f"version {version} can't be loaded: {shelf.failed[version].reason}" for version in failed
            ]
            raise LoadFailed(
                "; ".join(reasons)
                or shelf.trouble
                or f"model {shown(name)} has no version that its version policy wants"
            )
        return self._repository.statuses(name)

    async def unload_model(self, name: str, version: str = LATEST) -> list[VersionStatus]:
        """Serve a version, or without one the model, no longer, until `load_model` says otherwise.

        What the policy wants in a version's place is loaded first. Requests that have begun are answered.

        Returns
        -------
        list of VersionStatus
            Of this model.

        Raises
        ------
        ModelNotFound
            The repository has no such model, or no such version of it is there or served.
        InvalidRequest
            The version is not a positive integer.
        Unavailable
            The models are still being loaded for the first time.
        """
        number = _number(version)
        if number is not None and number not in {
            status.version for status in self._repository.statuses(name)
        }:
            self._repository.find(name, version)
        await self._repository.order(name, lambda orders: orders.unloading(number))
        return self._repository.statuses(name)


def _number(version: str) -> int | None:
    if version == LATEST:
        return None
    if not is_version(version):
        raise InvalidRequest(
            "version",
            f"version {shown(version)} is not a positive integer in decimal; "
            "empty means what the version policy wants",
        )
    return int(version)
