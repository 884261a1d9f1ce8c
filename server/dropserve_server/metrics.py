"""What Prometheus scrapes: the families, and the handles that requests update.

Labels hold nothing that a caller chose: an unknown model is counted under ``model="unknown"``. Handles
are looked up once a model and mode, not once a request.
"""

from __future__ import annotations

import os
import platform
import threading
from collections.abc import Callable, Iterable
from importlib.metadata import version
from time import time
from typing import Literal

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Metric, ProcessCollector
from prometheus_client.registry import RestrictedRegistry

from dropserve_server.tally import BulkHistogram, CounterTally, HistogramTally

Mode = Literal["deterministic", "monte_carlo"]
DETERMINISTIC: Mode = "deterministic"
MONTE_CARLO: Mode = "monte_carlo"

UNKNOWN = "unknown"

_DURATIONS = (1e-4, 2.5e-4, 5e-4, 1e-3, 2.5e-3, 5e-3, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)
_ROWS = tuple(2**power for power in range(15))
_LOAD_DURATIONS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)
_DEVIATIONS = tuple(float(f"{base}e{exponent}") for exponent in range(-5, 5) for base in (1, 2, 5))


class ModeMetrics:
    """The handles of one version of one model in one mode. For the event loop's thread."""

    def __init__(self, families: Metrics, model: str, version: str, mode: Mode) -> None:
        by_mode = (model, mode)
        self.answered = CounterTally(families.requests.labels(model, version, mode, "OK"))
        self.duration = HistogramTally(families.request_duration.labels(*by_mode))
        self.queue_duration = HistogramTally(families.queue_duration.labels(*by_mode))
        self.compute_duration = HistogramTally(families.compute_duration.labels(*by_mode))
        self.batch_rows = HistogramTally(families.batch_rows.labels(*by_mode))
        self.queue_rows = CounterTally(families.queue_rows.labels(*by_mode))
        self.rows = CounterTally(families.rows.labels(*by_mode))
        self.passes = CounterTally(families.passes.labels(model))

    def flush(self) -> None:
        """Hand on what was counted."""
        for tally in vars(self).values():
            tally.flush()


class ModelMetrics:
    """The handles of one version of one model.

    Attributes
    ----------
    failures : int
        Requests to it that were not answered.
    failure_seconds : float
        What they took.
    latest : float
        When the last request was answered or failed, in seconds since the epoch; 0 before the first.
    """

    def __init__(self, families: Metrics, model: str, version: str) -> None:
        self.deterministic = ModeMetrics(families, model, version, DETERMINISTIC)
        self.monte_carlo = ModeMetrics(families, model, version, MONTE_CARLO)
        self.predictive_std = families.predictive_std.labels(model)
        self.failures = 0
        self.failure_seconds = 0.0
        self.latest = 0.0

    def failed(self, seconds: float) -> None:
        """Count a request that was not answered; the families know it by its status."""
        self.failures += 1
        self.failure_seconds += seconds
        self.latest = time()


class FailureMetrics:
    """The handles of requests that fail in the same way."""

    def __init__(self, families: Metrics, model: str, version: str, mode: Mode, code: str) -> None:
        self._requests = families.requests.labels(model, version, mode, code)
        self._duration = families.request_duration.labels(model, mode)

    def observe(self, seconds: float) -> None:
        """Count one, and the time it took."""
        self._requests.inc()
        self._duration.observe(seconds)


class _Registry(CollectorRegistry):
    """Flushes what is counted in tallies before it is read."""

    def __init__(self, flush: Callable[[], None]) -> None:
        super().__init__(auto_describe=True)
        self._flush = flush

    def collect(self) -> Iterable[Metric]:
        self._flush()
        return super().collect()

    def restricted_registry(self, names: Iterable[str]) -> RestrictedRegistry:
        self._flush()
        return super().restricted_registry(names)


class Metrics:
    """Every family, on a registry of its own.

    Attributes
    ----------
    inflight : int
        Requests being answered now; the gauge reads it when it is scraped.
    """

    def __init__(self) -> None:
        self.inflight = 0
        self._live: list[tuple[Gauge, Callable[[], float]]] = []
        self._models: dict[tuple[str, str], ModelMetrics] = {}
        # Under overload most requests are refused, and that must cost little.
        self._failures: dict[tuple[str, str, Mode, str], FailureMetrics] = {}
        self._rejections: dict[tuple[str, str], Counter] = {}
        self._flushing = threading.Lock()
        self.registry = _Registry(self.flush)
        registry = self.registry
        by_mode = ("model", "mode")
        self.requests = Counter(
            "dropserve_requests_total",
            "Prediction requests, by the gRPC status they were answered with.",
            ("model", "version", "mode", "code"),
            registry=registry,
        )
        self.request_duration = Histogram(
            "dropserve_request_duration_seconds",
            "From a request's arrival to its answer, failures included.",
            by_mode,
            buckets=_DURATIONS,
            registry=registry,
        )
        self.queue_duration = Histogram(
            "dropserve_queue_duration_seconds",
            "What requests waited for a worker.",
            by_mode,
            buckets=_DURATIONS,
            registry=registry,
        )
        self.compute_duration = Histogram(
            "dropserve_compute_duration_seconds",
            "What computing requests took.",
            by_mode,
            buckets=_DURATIONS,
            registry=registry,
        )
        self.batch_rows = Histogram(
            "dropserve_batch_rows",
            "Rows computed together: of several requests, of one, or of a slice of a large one.",
            by_mode,
            buckets=_ROWS,
            registry=registry,
        )
        self.queue_rows = Gauge(
            "dropserve_queue_rows",
            "Rows in flight: waiting, and being computed.",
            by_mode,
            multiprocess_mode="livesum",
            registry=registry,
        )
        self.rows = Counter("dropserve_rows_total", "Rows predicted.", by_mode, registry=registry)
        self.passes = Counter(
            "dropserve_passes_total", "Stochastic passes computed.", ("model",), registry=registry
        )
        self.rejected = Counter(
            "dropserve_rejected_total",
            "Requests refused for lack of room or over a limit, by the reason.",
            ("model", "reason"),
            registry=registry,
        )
        self.predictive_std = BulkHistogram(
            "dropserve_predictive_std",
            "Standard deviation of Monte Carlo answers (noise included where the model predicts it), in the "
            "output's unit: of each row, the largest among its outputs.",
            ("model",),
            buckets=_DEVIATIONS,
            registry=registry,
        )
        self.model_info = Gauge(
            "dropserve_model_info",
            "1 for every version that is served.",
            ("model", "version", "provider"),
            registry=registry,
            multiprocess_mode="livemax",
        )
        self.model_load_duration = Histogram(
            "dropserve_model_load_duration_seconds",
            "What loading and verifying a version took, failures included.",
            ("model",),
            buckets=_LOAD_DURATIONS,
            registry=registry,
        )
        self.model_load_failures = Counter(
            "dropserve_model_load_failures_total",
            "Versions that could not be loaded.",
            ("model",),
            registry=registry,
        )
        self.failed_versions = Gauge(
            "dropserve_model_failed_versions",
            "Versions in the repository that should be served, and could not be loaded as they are now.",
            ("model",),
            registry=registry,
            multiprocess_mode="livemax",
        )
        self._observe_live(
            Gauge(
                "dropserve_inflight_requests",
                "Prediction requests being answered now.",
                registry=registry,
                multiprocess_mode="livesum",
            ),
            lambda: self.inflight,
        )
        Gauge(
            "dropserve_build_info",
            "1, with what is running.",
            ("version", "python"),
            registry=registry,
            multiprocess_mode="livemax",
        ).labels(version("dropserve"), platform.python_version()).set(1)
        ProcessCollector(registry=registry)

    def refresh(self) -> None:
        """Write down what a scrape would ask this process for; a worker isn't the one that is scraped."""
        self.flush()
        for gauge, function in self._live:
            gauge.set(function())

    def _observe_live(self, gauge: Gauge, function: Callable[[], float]) -> None:
        gauge.set_function(function)
        self._live.append((gauge, function))

    def of_model(self, model: str, version: str) -> ModelMetrics:
        """The handles of one version; call it once, when the version is loaded."""
        with self._flushing:
            return self._models.setdefault((model, version), ModelMetrics(self, model, version))

    def failure(self, model: str, version: str, mode: Mode, code: str) -> FailureMetrics:
        """The handles of requests that fail in this way."""
        key = (model, version, mode, code)
        handles = self._failures.get(key)
        if handles is None:
            handles = FailureMetrics(self, *key)
            # What a version's last requests come to, once it is unloaded, is hardly worth keeping.
            if model == UNKNOWN or (model, version) in self._models:
                self._failures[key] = handles
        return handles

    def rejection(self, model: str, reason: str) -> Counter:
        """The count of requests refused for this reason."""
        key = (model, reason)
        if key not in self._rejections:
            self._rejections[key] = self.rejected.labels(*key)
        return self._rejections[key]

    def flush(self) -> None:
        """Hand what was counted on to the families. Any thread may; reading `registry` does."""
        with self._flushing:
            for metrics in self._models.values():
                metrics.deterministic.flush()
                metrics.monte_carlo.flush()

    def forget_version(self, model: str, version: str, provider: str) -> None:
        """A version is served no longer."""
        _forget(self.model_info, model, version, provider)
        self.flush()
        self._models.pop((model, version), None)
        for key in [key for key in self._failures if key[:2] == (model, version)]:
            del self._failures[key]

    def forget_model(self, model: str) -> None:
        """The repository has no such model any more."""
        _forget(self.failed_versions, model)
        for key in [key for key in self._rejections if key[0] == model]:
            del self._rejections[key]


def _forget(gauge: Gauge, *labels: str) -> None:
    gauge.labels(*labels).set(0)
    if "PROMETHEUS_MULTIPROC_DIR" not in os.environ:  # in the file of a worker nothing can be removed
        gauge.remove(*labels)
