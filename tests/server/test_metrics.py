"""The families that operators read, and the page they are scraped from."""

from __future__ import annotations

import socket
import struct
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from weakref import ref

import numpy as np
import pytest
from prometheus_client import CollectorRegistry, Counter, Histogram

from dropserve_server.errors import StartupError
from dropserve_server.metrics import DETERMINISTIC, UNKNOWN, Metrics
from dropserve_server.metrics_http import MetricsServer
from dropserve_server.tally import BulkHistogram

FAMILIES = {
    "dropserve_requests": {"model", "version", "mode", "code"},
    "dropserve_request_duration_seconds": {"model", "mode"},
    "dropserve_queue_duration_seconds": {"model", "mode"},
    "dropserve_compute_duration_seconds": {"model", "mode"},
    "dropserve_batch_rows": {"model", "mode"},
    "dropserve_queue_rows": {"model", "mode"},
    "dropserve_rows": {"model", "mode"},
    "dropserve_passes": {"model"},
    "dropserve_inflight_requests": set(),
    "dropserve_rejected": {"model", "reason"},
    "dropserve_predictive_std": {"model"},
    "dropserve_model_info": {"model", "version", "provider"},
    "dropserve_model_load_duration_seconds": {"model"},
    "dropserve_model_load_failures": {"model"},
    "dropserve_model_failed_versions": {"model"},
    "dropserve_build_info": {"version", "python"},
}


def test_families_have_the_names_and_labels_that_the_contract_fixes() -> None:
    metrics = Metrics()
    metrics.of_model("m", "1")
    metrics.model_info.labels("m", "1", "CPU").set(1)
    metrics.rejected.labels("m", "rows").inc()
    metrics.model_load_duration.labels("m").observe(1)
    metrics.model_load_failures.labels("m").inc()
    metrics.failed_versions.labels("m").set(1)
    found = {
        family.name: {label for sample in family.samples for label in sample.labels} - {"le"}
        for family in metrics.registry.collect()
        if family.name.startswith("dropserve_")
    }
    assert found == FAMILIES


def test_two_servers_in_one_process_count_apart() -> None:
    one, other = Metrics(), Metrics()
    one.of_model("m", "1").deterministic.answered.inc()
    labels = {"model": "m", "version": "1", "mode": "deterministic", "code": "OK"}
    assert one.registry.get_sample_value("dropserve_requests_total", labels) == 1
    assert other.registry.get_sample_value("dropserve_requests_total", labels) is None


def test_requests_in_flight_are_read_when_scraped() -> None:
    metrics = Metrics()
    metrics.inflight = 3
    assert metrics.registry.get_sample_value("dropserve_inflight_requests") == 3


def test_many_observations_at_once_are_those_one_by_one() -> None:
    registry = CollectorRegistry()
    bounds = [0.1, 1.0, 10.0]
    bulk = BulkHistogram("bulk", "", ("model",), buckets=bounds, registry=registry).labels("m")
    single = Histogram("single", "", ("model",), buckets=bounds, registry=registry).labels("m")
    values = np.concatenate([[0.1, 1.0, 10.0, 0.0, 1e9], np.geomspace(0.01, 100, 95)]).astype(np.float32)
    bulk.observe_many(values)
    bulk.observe_many(np.zeros(0, np.float32))
    for value in values:
        single.observe(float(value))
    samples = {
        name: [
            (s.name.removeprefix(name), s.labels, s.value) for s in family.samples if "_created" not in s.name
        ]
        for family in registry.collect()
        for name in [family.name]
    }
    assert [s[:2] for s in samples["bulk"]] == [s[:2] for s in samples["single"]]
    assert [s[2] for s in samples["bulk"]] == pytest.approx([s[2] for s in samples["single"]])
    assert samples["bulk"][-1][2] > 0


def test_versions_are_told_apart_where_their_families_do_not() -> None:
    metrics = Metrics()
    first, second = (metrics.of_model("m", version).deterministic for version in ("1", "2"))
    for handles, seconds in ((first, 0.5), (first, 0.25), (second, 4.0)):
        handles.duration.observe(seconds)
        handles.rows.inc(2)
    assert (first.duration.count, first.duration.sum, first.rows.value) == (2, 0.75, 4)
    assert (second.duration.count, second.duration.sum, second.rows.value) == (1, 4.0, 2)
    assert first.queue_duration.count == 0
    labels = {"model": "m", "mode": "deterministic"}
    value = metrics.registry.get_sample_value
    assert value("dropserve_request_duration_seconds_sum", labels) == 4.75
    assert value("dropserve_rows_total", labels) == 6


def test_handles_of_failures_go_with_the_version_and_its_counts_stay() -> None:
    metrics = Metrics()
    for version in ("1", "2"):
        metrics.of_model("m", version)
        metrics.failure("m", version, DETERMINISTIC, "NOT_FOUND").observe(1.0)
    first, second = (metrics.failure("m", version, DETERMINISTIC, "NOT_FOUND") for version in ("1", "2"))
    forgotten = ref(first)
    del first
    metrics.forget_version("m", "1", "CPU")
    assert forgotten() is None
    assert metrics.failure("m", "2", DETERMINISTIC, "NOT_FOUND") is second
    late = ref(metrics.failure("m", "1", DETERMINISTIC, "NOT_FOUND"))  # was in flight, and is not kept
    assert late() is None
    metrics.failure("m", "1", DETERMINISTIC, "NOT_FOUND").observe(1.0)
    labels = {"model": "m", "version": "1", "mode": "deterministic", "code": "NOT_FOUND"}
    assert metrics.registry.get_sample_value("dropserve_requests_total", labels) == 2


def test_handles_of_requests_for_no_model_are_kept() -> None:
    metrics = Metrics()
    assert metrics.failure(UNKNOWN, UNKNOWN, DETERMINISTIC, "NOT_FOUND") is metrics.failure(
        UNKNOWN, UNKNOWN, DETERMINISTIC, "NOT_FOUND"
    )


def test_handles_of_refusals_go_with_the_model_and_their_counts_stay() -> None:
    metrics = Metrics()
    metrics.rejection("m", "rows").inc()
    metrics.rejection("other", "rows").inc()
    metrics.forget_model("m")
    assert metrics._rejections.keys() == {("other", "rows")}
    metrics.rejection("m", "rows").inc()
    assert (
        metrics.registry.get_sample_value("dropserve_rejected_total", {"model": "m", "reason": "rows"}) == 2
    )


def test_what_is_not_a_number_does_not_spoil_the_sum() -> None:
    registry = CollectorRegistry()
    histogram = BulkHistogram("h", "", buckets=[1.0], registry=registry)
    histogram.observe_many(np.array([np.nan, np.inf, 0.5], np.float32))
    assert registry.get_sample_value("h_sum") == 0.5
    assert registry.get_sample_value("h_count") == 1


class Health:
    """What is serving, as it is told."""

    def __init__(self, serving: Mapping[str, bool]) -> None:
        self._serving = serving

    def all(self) -> Mapping[str, bool]:
        return self._serving

    def failed(self) -> dict[str, list[int]]:
        return {"iris": [3, 10]} if "iris" in self._serving else {}


@contextmanager
def metrics_server(
    registry: CollectorRegistry | None = None,
    serving: Mapping[str, bool] | None = None,
    host: str = "127.0.0.1",
) -> Iterator[str]:
    """Run one for the time of the context; yields where."""
    server = MetricsServer(host, 0, registry or CollectorRegistry(), Health(serving or {}))
    try:
        yield f"http://{host}:{server.port}"
    finally:
        server.close()


def get(url: str) -> tuple[int, str]:
    """The status and the body of a page."""
    try:
        with urllib.request.urlopen(url, timeout=10) as page:
            return page.status, page.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read().decode()


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
def test_metrics_are_one_page_over_http(host: str) -> None:
    registry = CollectorRegistry()
    Counter("things", "Things.", registry=registry).inc(5)
    with metrics_server(registry, host=host) as root:
        status, body = get(f"{root}/metrics?name[]=things_total")
        assert status == 200
        assert "things_total 5.0" in body
        assert get(f"{root}/")[0] == get(f"{root}/metricsx")[0] == 404


def test_health_is_another_page() -> None:
    serving = {"": True, "iris": True, "a b/c&d": False}
    with metrics_server(serving=serving) as root:
        failed = '{"status": "SERVING", "failed": {"iris": [3, 10]}}\n'
        assert get(f"{root}/healthz") == get(f"{root}/healthz?model=iris") == (200, failed)
        assert get(f"{root}/healthz?model=a%20b%2Fc%26d") == (503, '{"status": "NOT_SERVING"}\n')
        assert get(f"{root}/healthz?model=nothing") == (404, '{"status": "SERVICE_UNKNOWN"}\n')
        serving[""] = False
        assert get(f"{root}/healthz") == (503, failed.replace("SERVING", "NOT_SERVING"))
    with metrics_server(serving={"": True}) as root:
        assert get(f"{root}/healthz") == (200, '{"status": "SERVING"}\n')


def test_a_caller_that_leaves_early_prints_nothing(capfd: pytest.CaptureFixture[str]) -> None:
    with metrics_server() as root:
        port = int(root.rpartition(":")[2])
        with socket.create_connection(("127.0.0.1", port), timeout=10) as caller:
            # Closed with data unread on either side, a connection is reset.
            caller.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            caller.sendall(b"GET /metrics HTTP/1.0\r\n")
        assert get(f"{root}/metrics")[0] == 200
    assert capfd.readouterr().err == ""


def test_a_taken_port_is_told_in_one_line() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(StartupError, match=f"can't listen on metrics port 127.0.0.1:{port}: .*in use"):
            MetricsServer("127.0.0.1", port, CollectorRegistry(), Health({}))
