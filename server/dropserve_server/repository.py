"""The models of a folder, served: loaded at the start, and kept in step with the folder."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from pathlib import Path

from dropserve_models.errors import ArtifactError, DeviceError
from dropserve_models.listing import Signature, list_models
from dropserve_server.catalogue import LATEST, listed, shown
from dropserve_server.errors import LoadFailed, ModelNotFound, Unavailable
from dropserve_server.loading import Loader, VersionLoader
from dropserve_server.logs import LOGGER
from dropserve_server.metrics import Metrics
from dropserve_server.policy import ModelPolicy, VersionPolicy
from dropserve_server.served import ServableModel, ServedModel, VersionStatus
from dropserve_server.shelf import Orders, Shelf, renewed
from dropserve_server.shelves import Shelves, Tell
from dropserve_server.threads import Threads

__all__ = ["LATEST", "Loader", "Repository", "ServableModel", "ServedModel", "VersionStatus"]

log = logging.getLogger(LOGGER)


class Repository(Shelves):
    """The models being served, from a folder. For the event loop's thread; files are read in others.

    One thing is done at a time: whoever asks for something waits until what was asked before is done.

    Parameters
    ----------
    folder : Path
        ``folder/MODEL/VERSION/model.onnx``.
    loader : callable
        Loads and verifies the version in a folder, or raises ModelsError; runs in a thread.
    versions : VersionPolicy
        Which versions of a model to serve.
    models : mapping of str to ModelPolicy
        The same, for single models.
    orders : mapping of str to Orders
        What an administrator has ordered before, of models that may be there or not.
    warm_up : bool
        Whether to prepare Monte Carlo before a version is served.
    """

    def __init__(
        self,
        folder: Path,
        loader: Loader,
        metrics: Metrics,
        *,
        versions: VersionPolicy = VersionPolicy(),  # noqa: B008  # frozen
        models: Mapping[str, ModelPolicy] | None = None,
        orders: Mapping[str, Orders] | None = None,
        warm_up: bool = False,
    ) -> None:
        super().__init__(metrics, ModelPolicy(versions), models or {}, orders or {})
        self._folder = folder
        self._loader = VersionLoader(loader, metrics)
        self._warm_up = warm_up
        self._trouble = ""
        self._lock = asyncio.Lock()
        self._at_work: set[int] = set()  # threads; they add and remove themselves, each in one step

    @property
    def busy(self) -> bool:
        """Whether threads are at work, also on what nobody waits for any more."""
        return bool(self._at_work)

    async def load(self, workers: int, tell: Tell) -> None:
        """Load every model of the folder, each as soon as one of `workers` threads is free.

        Parameters
        ----------
        tell : callable
            Told of each model when it is found, and from then on whenever it may have changed.

        Raises
        ------
        ArtifactError
            The folder can't be listed.
        DeviceError
            The device asked for is not there.
        """
        self._tell = tell
        async with self._lock:
            with Threads(workers, self._at_work) as threads:
                names = await threads.do(partial(list_models, self._folder))
                self._awaited.update(names)
                for name in names:
                    tell(name, False)
                await self._renew(threads, names)
        for name in set(self._orders) - set(names):
            del self._orders[name]
        for name in sorted(set(self._policies) - set(names)):
            log.warning("settings name a model that is not there", extra={"model": name})
        self._loading = False

    async def watch(self, seconds: float) -> None:
        """Refresh every so many seconds, without end; 0: never."""
        if not seconds:
            await asyncio.Event().wait()
        while True:
            await asyncio.sleep(seconds)
            try:
                await self.refresh()
            except Exception:
                log.exception("repository not looked through", extra={"repository": str(self._folder)})

    async def refresh(self) -> None:
        """Serve what has changed in the folder, once it has looked the same twice.

        Does nothing while the folder can't be listed, or is empty where models of it are served: that is
        what a file system that is not mounted looks like.
        """
        async with self._lock:
            with Threads(1, self._at_work) as threads:
                try:
                    names = await self._names(threads)
                except LoadFailed as error:
                    self._complain(str(error))
                else:
                    self._complain("")
                    await self._renew(threads, names, patient=True)

    async def reload(self) -> None:
        """Serve what is in the folder now; also try again what has failed.

        Raises
        ------
        LoadFailed
            The folder can't be listed, or is empty where models of it are served.
        Unavailable
            The models are still being loaded for the first time.
        """
        async with self._lock:
            self._check_started()
            with Threads(1, self._at_work) as threads:
                await self._renew(threads, await self._names(threads), retry=True)

    async def order(
        self,
        name: str,
        change: Callable[[Orders], Orders],
        fulfilled: Callable[[Shelf], bool] = lambda shelf: True,
    ) -> Shelf:
        """Change the orders for a model, follow them, and keep them where they could be `fulfilled`.

        Returns
        -------
        Shelf
            The model then.

        Raises
        ------
        ModelNotFound
            The repository has no such model.
        LoadFailed
            The folder can't be listed, or is empty where models of it are served.
        Unavailable
            The models are still being loaded for the first time.
        """
        async with self._lock:
            self._check_started()
            with Threads(1, self._at_work) as threads:
                # What callers write is compared with names; it is no part of a path before it is one of them.
                names = await self._names(threads)
                if name not in names:
                    raise ModelNotFound(f"the repository has no model {shown(name)}; it has: {listed(names)}")
                before = self._orders.get(name, Orders())
                self._orders[name] = change(before)
                await self._renew(threads, [name], retry=True)
                shelf = self._shelves.get(name, Shelf())
                if not fulfilled(shelf):
                    self._orders[name] = before
                    if before.withheld:  # what could be loaded in the failed version's place goes again
                        await self._renew(threads, [name])
                return shelf

    def _check_started(self) -> None:
        if self._loading:
            raise Unavailable("the server is starting: models are being loaded; try again soon")

    async def _names(self, threads: Threads) -> list[str]:
        """Names of the models that the folder has or had, sorted."""
        try:
            names = await threads.do(partial(list_models, self._folder))
        except ArtifactError as error:
            raise LoadFailed(str(error)) from error
        if not names and self._served:
            raise LoadFailed(
                f"the repository {self._folder} is empty, as one that is not mounted; what is served stays"
            )
        return sorted({*names, *self._shelves})

    def _complain(self, trouble: str) -> None:
        if trouble != self._trouble:
            self._trouble = trouble
            if trouble:
                log.error("repository unreadable", extra={"reason": trouble})
            else:
                log.info("repository readable again", extra={"repository": str(self._folder)})

    async def _renew(
        self, threads: Threads, names: Iterable[str], *, patient: bool = False, retry: bool = False
    ) -> None:
        """Renew models, and serve each as soon as it is renewed."""

        async def renew(name: str) -> None:
            work = partial(
                renewed,
                self._shelves.get(name, Shelf()),
                self._folder / name,
                self._policy_of(name),
                self._orders.get(name, Orders()),
                self._load_version,
                warm_up=self._warm_up,
                patient=patient,
                retry=retry,
            )
            self._put(name, await threads.do(work))

        renewals = [asyncio.ensure_future(renew(name)) for name in names]
        try:
            for renewal in asyncio.as_completed(renewals):
                await renewal
        finally:
            for renewal in renewals:
                renewal.cancel()
            await asyncio.gather(*renewals, return_exceptions=True)

    def _load_version(self, folder: Path, signature: Signature, warm_up: bool) -> ServedModel:
        key = (folder.parent.name, int(folder.name))
        self._being_loaded.add(key)
        try:
            return self._loader.load(folder, signature, warm_up=warm_up)
        except DeviceError as error:
            if self._loading:
                raise
            raise LoadFailed(str(error)) from error
        finally:
            self._being_loaded.discard(key)
