"""What is known of every model of the repository, and what follows from it for callers and operators."""

from __future__ import annotations

import asyncio
import logging
import weakref
from collections.abc import Callable, Mapping

from dropserve_server.catalogue import Catalogue
from dropserve_server.logs import LOGGER
from dropserve_server.memory import give_back_soon
from dropserve_server.metrics import Metrics
from dropserve_server.policy import ModelPolicy
from dropserve_server.served import VersionStatus
from dropserve_server.shelf import Orders, Shelf

Tell = Callable[[str, bool | None], None]
"""Is told a model's name and whether it is served; None: there is no such model any more."""

log = logging.getLogger(LOGGER)


class Shelves(Catalogue):
    """A shelf a model. For the event loop's thread.

    Parameters
    ----------
    policy : ModelPolicy
        Which versions of a model to serve.
    policies : mapping of str to ModelPolicy
        The same, for single models.
    orders : mapping of str to Orders
        What an administrator has ordered before, of models that may be there or not.
    """

    def __init__(
        self,
        metrics: Metrics,
        policy: ModelPolicy,
        policies: Mapping[str, ModelPolicy],
        orders: Mapping[str, Orders],
    ) -> None:
        super().__init__()
        self._metrics = metrics
        self._policy = policy
        self._policies = policies
        self._tell: Tell = lambda name, served: None
        self._shelves: dict[str, Shelf] = {}
        self._orders = dict(orders)
        self._awaited: set[str] = set()
        self._being_loaded: set[tuple[str, int]] = set()  # threads add and remove, each in one step

    @property
    def awaited(self) -> frozenset[str]:
        """Names of the models that are still being loaded for the first time."""
        return frozenset(self._awaited)

    @property
    def orders(self) -> dict[str, Orders]:
        """What an administrator has ordered, by the name of the model, where that is not nothing."""
        return {name: orders for name, orders in self._orders.items() if orders != Orders()}

    @property
    def failed(self) -> frozenset[str]:
        """Names of the models of which no version could be loaded."""
        return frozenset(
            name
            for name, shelf in self._shelves.items()
            if not shelf.loaded and (shelf.failed or shelf.trouble)
        )

    def statuses(self, only: str | None = None) -> list[VersionStatus]:
        """How every version stands that is in the repository or served, by name and version, ascending."""
        being_loaded = self._being_loaded.copy()
        names = {*self._shelves, *(name for name, _ in being_loaded)}
        return [
            status
            for name in sorted(names if only is None else names & {only})
            for status in self._shelves.get(name, Shelf()).statuses(
                name, self._policy_of(name), {version for model, version in being_loaded if model == name}
            )
        ]

    def _policy_of(self, name: str) -> ModelPolicy:
        return self._policies.get(name, self._policy)

    def _put(self, name: str, shelf: Shelf) -> None:
        before = self._shelves.get(name, Shelf())
        if shelf == before and name in self._shelves:
            return
        self._report(name, before, shelf)
        self._awaited.discard(name)
        exists = shelf.present or shelf.loaded or shelf.trouble
        if exists:
            self._shelves[name] = shelf
        else:
            self._shelves.pop(name, None)
            self._orders.pop(name, None)
            self._metrics.forget_model(name)
        self._show(
            name,
            {version: standing.served for version, standing in shelf.loaded.items()},
            self._policy_of(name).default_of(shelf.loaded),
            self._why_absent(name, shelf) if exists else "",
        )
        self._tell(name, bool(shelf.loaded) if exists else None)

    def _report(self, name: str, before: Shelf, after: Shelf) -> None:
        if after.trouble and after.trouble != before.trouble:
            self._metrics.model_load_failures.labels(name).inc()
            log.error("model failed to load", extra={"model": name, "reason": after.trouble})
        for version, standing in after.loaded.items():
            self._metrics.model_info.labels(name, str(version), standing.served.info.provider).set(1)
        for version, standing in before.loaded.items():
            if version not in after.loaded:
                self._metrics.forget_version(name, str(version), standing.served.info.provider)
                log.info("model unloaded", extra={"model": name, "version": version})
                weakref.finalize(standing.served, give_back_soon, asyncio.get_running_loop())
        self._metrics.failed_versions.labels(name).set(len(after.failed))

    def _why_absent(self, name: str, shelf: Shelf) -> str:
        if self._orders.get(name, Orders()).withheld:
            return "has been unloaded"
        if shelf.failed or shelf.trouble:
            return "could not be loaded; the server's log says why"
        return "has no version that is to be served"
