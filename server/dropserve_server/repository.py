"""The models being served: loaded from a folder, looked up by name and version."""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from time import perf_counter
from typing import Protocol

from dropserve_models.artifact import list_models, list_versions
from dropserve_models.errors import ArtifactError, DeviceError, ModelsError
from dropserve_models.prediction import FloatArray, ModelInfo, MonteCarloOptions, Prediction
from dropserve_server.costs import ModelCosts
from dropserve_server.errors import InvalidRequest, ModelNotFound, Unavailable
from dropserve_server.logs import LOGGER
from dropserve_server.metrics import Metrics, ModelMetrics

LATEST = ""
_VERSION = re.compile("[1-9][0-9]{0,17}", re.ASCII)
_NAMES_LISTED = 10
_NAME_CHARACTERS = 128

log = logging.getLogger(LOGGER)


class ServableModel(Protocol):
    """What the server asks of a model; `dropserve_models.Model` is one."""

    @property
    def info(self) -> ModelInfo:
        """What the model is."""

    @property
    def monte_carlo_unavailable(self) -> str | None:
        """Why Monte Carlo requests are refused, if they are."""

    def prepare_monte_carlo(self) -> None:
        """Make the first Monte Carlo request as fast as the next ones."""

    def run(self, features: FloatArray, monte_carlo: MonteCarloOptions | None = None) -> Prediction:
        """Predict; any thread may call it at any time."""

    def together(self, rows: int, options: MonteCarloOptions) -> Hashable | None:
        """What Monte Carlo requests must have in common to be computed together; None: they can't be."""

    def run_together(self, features: Sequence[FloatArray], options: MonteCarloOptions) -> list[Prediction]:
        """Predict several such requests' rows; an answer that is not finite is the caller's to find."""


Loader = Callable[[Path], ServableModel]


class ServedModel:
    """One version of one model, ready to answer."""

    __slots__ = ("costs", "features", "info", "metrics", "model", "name", "on_cpu", "outputs", "version")

    def __init__(self, model: ServableModel, metrics: ModelMetrics) -> None:
        self.model = model
        self.metrics = metrics
        self.costs = ModelCosts()
        self.info = model.info
        self.name = model.info.name
        self.version = str(model.info.version)
        self.on_cpu = model.info.provider == "CPUExecutionProvider"
        self.features = len(model.info.feature_names)
        self.outputs = len(model.info.output_names)


class Repository:
    """The models being served. Look-ups and `load` are for the event loop's thread.

    Parameters
    ----------
    folder : Path
        ``folder/MODEL/VERSION/model.onnx``.
    loader : callable
        Loads and verifies the version in a folder, or raises ModelsError; runs in a thread.
    versions : int
        How many versions of a model to serve: the newest ones that load.
    warm_up : bool
        Whether to prepare Monte Carlo before a model is served.
    """

    def __init__(
        self, folder: Path, loader: Loader, metrics: Metrics, *, versions: int = 1, warm_up: bool = False
    ) -> None:
        self._folder = folder
        self._loader = loader
        self._metrics = metrics
        self._versions = versions
        self._warm_up = warm_up
        self._loading = True
        self._failed: frozenset[str] = frozenset()
        # By name, then by the version as requests spell it; LATEST is the default one.
        self._served: Mapping[str, Mapping[str, ServedModel]] = {}

    def find(self, name: str, version: str = LATEST) -> ServedModel:
        """The model that answers requests for `name` and `version`.

        Raises
        ------
        ModelNotFound
            It is not served; the message names what is.
        InvalidRequest
            The version is not a positive integer.
        Unavailable
            It may be among the models that are still being loaded.
        """
        try:
            return self._served[name][version]
        except KeyError:
            raise self._missing(name, version) from None

    def __len__(self) -> int:
        """How many models are served."""
        return len(self._served)

    @property
    def loading(self) -> bool:
        """Whether models are still being loaded for the first time."""
        return self._loading

    def __iter__(self) -> Iterator[tuple[ServedModel, bool]]:
        """Every served version by name and version, ascending, and whether it is the default one."""
        for _, versions in sorted(self._served.items()):
            default = versions[LATEST]
            distinct = (served for version, served in versions.items() if version != LATEST)
            for served in sorted(distinct, key=lambda served: served.info.version):
                yield served, served is default

    async def load(self, workers: int, tell: Callable[[str, bool], None]) -> None:
        """Load every model of the folder, each as soon as one of `workers` threads is free.

        Parameters
        ----------
        tell : callable
            Told each model's name and whether it is served: that it is not as soon as it is found, and
            that it is once it has loaded.

        Raises
        ------
        ArtifactError
            The folder can't be listed.
        DeviceError
            The device asked for is not there.
        """
        loop = asyncio.get_running_loop()
        pool = ThreadPoolExecutor(workers, thread_name_prefix="load")
        models: list[asyncio.Future[tuple[str, list[ServedModel]]]] = []
        try:
            names = await loop.run_in_executor(pool, list_models, self._folder)
            for name in names:
                tell(name, False)
            models.extend(loop.run_in_executor(pool, self._load_model, name) for name in names)
            for model in asyncio.as_completed(models):
                name, versions = await model
                self._publish(name, versions)
                tell(name, bool(versions))
        finally:
            for model in models:
                model.cancel()
            pool.shutdown(wait=False, cancel_futures=True)
        self._loading = False

    def _load_model(self, name: str) -> tuple[str, list[ServedModel]]:
        """The newest versions that load, newest first. A broken one does not take a good one's place."""
        versions: list[ServedModel] = []
        try:
            candidates = list_versions(self._folder / name)
        except ArtifactError as error:
            self._metrics.model_load_failures.labels(name).inc()
            log.error("model failed to load", extra={"model": name, "reason": str(error)})
            return name, versions
        for version in reversed(candidates):
            if len(versions) == self._versions:
                break
            if served := self._load_version(name, version):
                versions.append(served)
        return name, versions

    def _load_version(self, name: str, version: int) -> ServedModel | None:
        about = {"model": name, "version": version}
        started = perf_counter()
        try:
            model = self._loader(self._folder / name / str(version))
            if self._warm_up and model.monte_carlo_unavailable is None:
                model.prepare_monte_carlo()
        except DeviceError:
            raise
        except Exception as error:
            self._metrics.model_load_failures.labels(name).inc()
            # Only a bug of ours, or of the runtime's, deserves its stack trace.
            trace = None if isinstance(error, ModelsError) else error
            log.error("model failed to load", extra=about | {"reason": str(error)}, exc_info=trace)
            return None
        finally:
            seconds = perf_counter() - started
            self._metrics.model_load_duration.labels(name).observe(seconds)
        self._metrics.model_info.labels(name, str(version), model.info.provider).set(1)
        log.info(
            "model loaded",
            extra=about | {"provider": model.info.provider, "seconds": round(seconds, 3)},
        )
        if model.monte_carlo_unavailable is not None:
            log.info("no monte carlo", extra=about | {"reason": model.monte_carlo_unavailable})
        return ServedModel(model, self._metrics.of_model(name, str(version)))

    def _publish(self, name: str, versions: list[ServedModel]) -> None:
        if versions:
            self._served = {
                **self._served,
                name: {LATEST: versions[0]} | {served.version: served for served in versions},
            }
        else:
            self._failed |= {name}

    def _missing(self, name: str, version: str) -> Exception:
        if version != LATEST and not _VERSION.fullmatch(version):
            return InvalidRequest(
                "version",
                f"version {_shown(version)} is not a positive integer in decimal; empty means the latest",
            )
        if name in self._served:
            versions = sorted((v for v in self._served[name] if v != LATEST), key=int)
            return ModelNotFound(
                f"model {_shown(name)} has no version {version} here; served: {_listed(versions)}"
            )
        if self._loading:
            return Unavailable("the server is starting: models are being loaded; try again soon")
        if name in self._failed:
            return ModelNotFound(f"model {_shown(name)} could not be loaded; the server's log says why")
        if not name:
            return InvalidRequest("model", f"no model is named; served: {_listed(sorted(self._served))}")
        return ModelNotFound(f"there is no model {_shown(name)}; served: {_listed(sorted(self._served))}")


def _listed(names: list[str]) -> str:
    # Bounded: a status message travels in a header, which has little room.
    more = len(names) - _NAMES_LISTED
    return ", ".join(names[:_NAMES_LISTED]) + (f" and {more} more" if more > 0 else "") if names else "none"


def _shown(text: str) -> str:
    return ascii(text if len(text) <= _NAME_CHARACTERS else text[:_NAME_CHARACTERS] + "...")
