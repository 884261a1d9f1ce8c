"""The server, the alerts and the dashboard in the hands of a real Prometheus."""

from __future__ import annotations

import json
import shutil
import subprocess
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest

from dropserve.v1.prediction_pb2 import MonteCarlo
from support import example_repository
from support.example_repository import rows_for
from support.families import families, strings
from support.prediction_client import Asker, request
from support.prometheus import Prometheus, program, prometheus
from support.server_process import ServerProcess, server_process

DEPLOY = Path(__file__).parents[2] / "deploy"


def promtool(*arguments: str, text: str | None = None) -> str:
    """What promtool has to say, having found nothing wrong."""
    done = subprocess.run(
        [program("promtool"), *arguments],
        input=text,
        capture_output=True,
        text=True,
        timeout=120,
        cwd=DEPLOY / "prometheus",
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


@pytest.fixture(scope="module")
def asked(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """A server that has answered in both modes, refused, and failed to load a model."""
    program("prometheus")
    repository = example_repository.fill(tmp_path_factory.mktemp("repository"))
    with server_process(repository) as server, grpc.insecure_channel(server.address) as channel:
        ask(Asker(channel))
        yield server


def ask(asker: Asker) -> None:
    rows = rows_for("targets", 3)
    asker.predict("targets", rows)
    asker.predict("targets", rows, MonteCarlo(passes=30))
    asker.refused(request("nothing", rows))
    asker.refused(request("targets", rows_for("targets", 16_385)))


@pytest.fixture(scope="module")
def watching(asked: ServerProcess, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Prometheus]:
    """Prometheus as deploy/ sets it up, but in a hurry, and looking at that server."""
    folder = tmp_path_factory.mktemp("prometheus")
    shutil.copy(DEPLOY / "prometheus/alerts.yml", folder)
    config = (DEPLOY / "prometheus/prometheus.yml").read_text("utf-8")
    config = config.replace("15s", "200ms").replace("localhost:8002", f"127.0.0.1:{asked.metrics_port}")
    (folder / "prometheus.yml").write_text(config, "utf-8")
    with prometheus(folder / "prometheus.yml", folder / "data") as watcher:
        watcher.until(lambda: watcher.query('up{job="dropserve"} == 1'))
        with grpc.insecure_channel(asked.address) as channel:
            ask(Asker(channel))
        # Two scrapes that differ are what a rate needs.
        watcher.until(lambda: watcher.query("rate(dropserve_passes_total[1m]) > 0"))
        yield watcher


def check_page(server: ServerProcess) -> str:
    with urllib.request.urlopen(f"http://127.0.0.1:{server.metrics_port}/metrics", timeout=60) as page:
        text: str = page.read().decode()
    assert "dropserve_requests_total" in text
    assert promtool("check", "metrics", text=text) == ""
    return text


def test_the_page_is_as_prometheus_wants_it(asked: ServerProcess) -> None:
    check_page(asked)


def test_the_page_of_several_workers_is_too(tmp_path: Path) -> None:
    program("promtool")
    repository = example_repository.fill(tmp_path)
    with server_process(repository, "--workers", "2") as server:
        for _ in range(4):  # who answers is the kernel's choice
            with grpc.insecure_channel(server.address, [("grpc.use_local_subchannel_pool", 1)]) as channel:
                ask(Asker(channel))
        server.scrape_until(lambda found: found.get('dropserve_passes_total{model="targets"}') == 4 * 30)
        text = check_page(server)
    assert "dropserve_workers 2.0" in text
    assert 'process_cpu_seconds_total{worker="2"}' in text


def test_the_alerts_are_valid_and_fire_when_they_should() -> None:
    assert "SUCCESS" in promtool("check", "config", "prometheus.yml")
    assert "SUCCESS" in promtool("check", "rules", "alerts.yml")
    assert "SUCCESS" in promtool("test", "rules", "alerts_test.yml")


def test_prometheus_has_every_family_that_has_something_to_tell(watching: Prometheus) -> None:
    metadata = watching.get("targets/metadata", match_target='{job="dropserve"}')
    described = {entry["metric"]: entry["type"] for entry in metadata if entry["help"]}
    for family in families().values():
        # Scraped as OpenMetrics, where a counter's family goes without its series' ending.
        assert described[family.name.removesuffix("_total")] == family.type
    names = set(watching.get("label/__name__/values"))
    for family in families().values():
        assert {family.name, f"{family.name}_bucket"} & names, family


def test_it_counts_what_was_asked(watching: Prometheus) -> None:
    by_code = watching.query("sum by (model, mode, code) (dropserve_requests_total) > 0")
    assert {(m["model"], m["mode"], m["code"]): value for m, value in by_code} == {
        ("targets", "deterministic", "OK"): 2,
        ("targets", "monte_carlo", "OK"): 2,
        ("targets", "deterministic", "RESOURCE_EXHAUSTED"): 2,
        ("unknown", "deterministic", "NOT_FOUND"): 2,
    }
    ((labels, refused),) = watching.query("dropserve_rejected_total")
    assert (labels["model"], labels["reason"], refused) == ("targets", "rows", 2)
    ((_, p99),) = watching.query(
        "histogram_quantile(0.99, sum by (le) "
        '(dropserve_request_duration_seconds_bucket{model="targets", mode="monte_carlo"}))'
    )
    assert 0 < p99 <= 30


def test_the_alerts_that_fire_are_those_of_the_broken_model(watching: Prometheus) -> None:
    def alerts() -> set[tuple[str, str]]:
        active = watching.get("alerts")["alerts"]
        return {(alert["labels"]["alertname"], alert["labels"]["model"]) for alert in active}

    wanted = {("DropserveModelLoadFailed", "damaged"), ("DropserveModelNotServed", "damaged")}
    watching.until(lambda: alerts() == wanted)
    rules = [rule for group in watching.get("rules")["groups"] for rule in group["rules"]]
    assert {rule["health"] for rule in rules} == {"ok"}


def test_every_panel_shows_something(watching: Prometheus) -> None:
    variables = {
        "$__rate_interval": "1m",
        "$__interval": "1m",
        "$__range": "5m",
        "$job": "dropserve",
        "$instance": ".*",
        "$model": ".*",
    }
    dashboard = json.loads((DEPLOY / "grafana/dropserve.json").read_text("utf-8"))
    empty = []
    for expression in strings(dashboard["panels"], "expr"):
        query = expression
        for name, value in variables.items():
            query = query.replace(name, value)
        assert "$" not in query
        if not watching.query(query):
            empty.append(expression)
    # Nothing is a day old yet.
    assert [expression for expression in empty if "offset 1d" not in expression] == []
