"""Loading one version: verified, warmed up, counted and logged. Runs in threads, off the serving path."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from time import perf_counter

from dropserve_models.errors import ArtifactError, DeviceError, ModelsError, MonteCarloUnavailable
from dropserve_models.listing import Signature, signature
from dropserve_server.errors import LoadFailed
from dropserve_server.logs import LOGGER
from dropserve_server.metrics import Metrics
from dropserve_server.served import ServableModel, ServedModel

Loader = Callable[[Path], ServableModel]

_REASON_CHARACTERS = 500

log = logging.getLogger(LOGGER)


class VersionLoader:
    """Loads versions.

    Parameters
    ----------
    loader : callable
        Loads and verifies the version in a folder, or raises ModelsError.
    """

    def __init__(self, loader: Loader, metrics: Metrics) -> None:
        self._loader = loader
        self._metrics = metrics

    def load(self, folder: Path, expected: Signature, *, warm_up: bool) -> ServedModel:
        """The version in ``REPOSITORY/NAME/VERSION``.

        Parameters
        ----------
        expected : Signature
            The folder's: it must not change while it is read.
        warm_up : bool
            Whether to prepare Monte Carlo, where there is any.

        Raises
        ------
        LoadFailed
            It can't be loaded; logged and counted.
        DeviceError
            The device asked for is not there, which is no model's fault.
        """
        name, version = folder.parent.name, folder.name
        about = {"model": name, "version": int(version)}
        started = perf_counter()
        try:
            model = self._loader(folder)
            if signature(folder) != expected:
                raise ArtifactError(f"{folder} changed while it was being read")
            if warm_up:
                _prepare(model)
        except DeviceError:
            raise
        except Exception as error:
            reason = " ".join(str(error).split())[:_REASON_CHARACTERS] or type(error).__name__
            self._metrics.model_load_failures.labels(name).inc()
            # Only a bug of ours, or of the runtime's, deserves its stack trace.
            trace = None if isinstance(error, ModelsError) else error
            log.error("model failed to load", extra=about | {"reason": reason}, exc_info=trace)
            raise LoadFailed(reason) from error
        finally:
            seconds = perf_counter() - started
            self._metrics.model_load_duration.labels(name).observe(seconds)
        log.info(
            "model loaded", extra=about | {"provider": model.info.provider, "seconds": round(seconds, 3)}
        )
        if model.monte_carlo_unavailable is not None:
            log.info("no monte carlo", extra=about | {"reason": model.monte_carlo_unavailable})
        return ServedModel(model, self._metrics.of_model(name, version))


def _prepare(model: ServableModel) -> None:
    if model.monte_carlo_unavailable is None:
        try:
            model.prepare_monte_carlo()
        except MonteCarloUnavailable:
            pass  # the model says so from now on, and answers without
