"""Alerts, dashboard and documentation speak of the families that the server has, and of no others."""

from __future__ import annotations

import json
import re
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest

from support.families import (
    Family,
    families,
    grouped_by,
    series,
    strings,
    supervisor_families,
    template_labels,
    unknown,
)

ROOT = Path(__file__).parents[2]
ALERTS = ROOT / "deploy/prometheus/alerts.yml"
DASHBOARD = ROOT / "deploy/grafana/dropserve.json"
OPERATIONS = ROOT / "docs/operations.md"


def alerts() -> dict[str, str]:
    """The text of each alert, by its name."""
    parts = re.split(r"^ *- alert: (\w+)\n", ALERTS.read_text("utf-8"), flags=re.MULTILINE)[1:]
    return dict(zip(parts[::2], parts[1::2], strict=True))


def dashboard() -> dict[str, Any]:
    document: dict[str, Any] = json.loads(DASHBOARD.read_text("utf-8"))
    return document


@pytest.mark.parametrize(
    ("expression", "problems"),
    [
        ('sum by (model) (rate(dropserve_requests_total{code="OK", job="a"}[5m]))', []),
        ('dropserve_request_duration_seconds_bucket{le="0.1"}', []),
        ("dropserve_request_duration_seconds", ["no series dropserve_request_duration_seconds"]),
        ("dropserve_requests", ["no series dropserve_requests"]),
        ("dropserve_nothing_total", ["no series dropserve_nothing_total"]),
        ('dropserve_rows_total{code="OK"}', ["dropserve_rows_total has no label code"]),
        ('dropserve_rows_total{mode!~"code=}"}', []),
        ("sum by (model, code) (dropserve_rows_total)", ["nothing here has a label code"]),
        ("up unless on (instance, mode) dropserve_model_info", ["nothing here has a label mode"]),
    ],
)
def test_what_no_server_has_is_found(expression: str, problems: list[str]) -> None:
    assert unknown(expression) == problems


def test_alerts_use_what_there_is() -> None:
    found = alerts()
    assert len(found) >= 10
    for name, text in found.items():
        expression, _, rest = text.partition("annotations:")
        assert unknown(expression) == [], name
        # What an aggregation leaves is what the text can show.
        left = grouped_by(expression) if " by " in expression else frozenset().union(*series().values())
        assert template_labels(rest) <= left, name


def test_every_alert_has_a_severity_a_summary_and_a_description() -> None:
    for name, text in alerts().items():
        assert re.search(r"severity: (critical|warning)\n", text), name
        assert re.search(r"summary: .+\n *description: .+", text), name


def test_every_alert_is_tried_in_promtools_tests() -> None:
    tried = set(re.findall(r'alertname="(\w+)"', ALERTS.with_name("alerts_test.yml").read_text("utf-8")))
    assert tried == set(alerts())


def test_every_alert_is_documented() -> None:
    documented = re.findall(r"^\| `(Dropserve\w+)` \|", OPERATIONS.read_text("utf-8"), re.MULTILINE)
    assert documented == list(alerts())


def test_the_dashboard_uses_what_there_is() -> None:
    expressions = strings(dashboard(), "expr")
    assert len(expressions) > 20
    assert [problem for expression in expressions for problem in unknown(expression)] == []
    for query in strings(dashboard()["templating"], "query"):
        assert unknown(query) == []
        _, _, label = query.removesuffix(")").rpartition(", ")
        assert query == "prometheus" or label in {"job", "instance", "model"}


def test_the_dashboards_panels_fit() -> None:
    panels = dashboard()["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    places = [
        {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        for place in (panel["gridPos"] for panel in panels)
    ]
    assert all(one.isdisjoint(other) for one, other in combinations(places, 2))
    assert max(x for place in places for x, _ in place) == 23


def test_exactly_the_families_that_there_are_are_documented() -> None:
    rows = re.findall(
        r"^\| `(dropserve_\w+)` \| (\w+) \| ([\w, ]*) ?\|", OPERATIONS.read_text("utf-8"), re.MULTILINE
    )
    documented = [
        Family(name, type_, frozenset(filter(None, labels.replace(",", " ").split())))
        for name, type_, labels in rows
    ]
    there = families() | supervisor_families()
    existing = [family for name, family in there.items() if name.startswith("dropserve_")]
    assert sorted(documented, key=lambda f: f.name) == sorted(existing, key=lambda f: f.name)
