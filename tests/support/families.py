"""The metric families that the server has, and those that an expression in PromQL uses."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from prometheus_client import CollectorRegistry, Metric

from dropserve_server.metrics import Metrics
from dropserve_server.settings import Settings
from dropserve_server.workers.supervisor import Supervisor

TARGET_LABELS = frozenset({"job", "instance"})
"""What Prometheus adds to every series."""

_SUFFIXES: dict[str, dict[str, set[str]]] = {
    "histogram": {"_bucket": {"le"}, "_sum": set(), "_count": set()},
    "counter": {"_total": set()},
}
_STRING = re.compile(r'"(?:[^"\\]|\\.)*"')
_SELECTOR = re.compile(r"\b((?:dropserve|process)_\w+)(?:\s*{([^}]*)})?")
_MATCHER = re.compile(r"(\w+)\s*(?:=~|!~|!=|=)")
_GROUPING = re.compile(r"\b(?:by|on|ignoring|without|group_left|group_right)\s*\(([^)]*)\)")
_TEMPLATE = re.compile(r"\$labels\.(\w+)")


@dataclass(frozen=True)
class Family:
    """A family as the documentation names it: counters with their ``_total``."""

    name: str
    type: str
    labels: frozenset[str]


def families() -> dict[str, Family]:
    """Every family of a server, those of its process included, by name."""
    return _families(Metrics().registry)


def supervisor_families() -> dict[str, Family]:
    """Those that the supervisor of several workers adds."""
    return _families(Supervisor(Settings(repository=Path(), workers=2)).registry)


def _families(registry: CollectorRegistry) -> dict[str, Family]:
    found = {}
    # What a family's labels are it tells only in its series, and without a request there are none.
    for collector in list(registry._collector_to_names):
        labels = frozenset(getattr(collector, "_labelnames", ()))
        for metric in collector.collect():
            family = Family(_documented(metric), metric.type, labels)
            found[family.name] = family
    return found


def series() -> dict[str, frozenset[str]]:
    """The names that can be queried, and the labels of each, those that Prometheus adds included."""
    return {
        family.name.removesuffix("_total") + suffix: family.labels | labels | TARGET_LABELS
        for family in (families() | supervisor_families()).values()
        for suffix, labels in _SUFFIXES.get(family.type, {"": set()}).items()
    }


def unknown(expression: str) -> list[str]:
    """What an expression names that no server has: series, labels of a series, labels to group by."""
    known = series()
    problems = []
    used: set[str] = set()
    bare = _STRING.sub('""', expression)
    for name, matchers in _SELECTOR.findall(bare):
        if name not in known:
            problems.append(f"no series {name}")
            continue
        used |= known[name]
        problems += [f"{name} has no label {m}" for m in _MATCHER.findall(matchers) if m not in known[name]]
    for labels in _GROUPING.findall(bare):
        names = {name.strip() for name in labels.split(",")}
        problems += [f"nothing here has a label {name}" for name in sorted(names - used) if used]
    return problems


def template_labels(text: str) -> set[str]:
    """The labels that an alert's text shows."""
    return set(_TEMPLATE.findall(text))


def grouped_by(expression: str) -> set[str]:
    """The labels that an expression groups by."""
    return {
        n.strip() for labels in _GROUPING.findall(_STRING.sub('""', expression)) for n in labels.split(",")
    }


def _documented(metric: Metric) -> str:
    return metric.name + "_total" if metric.type == "counter" else metric.name


def strings(document: Any, key: str) -> list[str]:
    """Every string under that key in a JSON document, however deep."""
    if isinstance(document, dict):
        own = [value for name, value in document.items() if name == key and isinstance(value, str)]
        return own + [s for value in document.values() for s in strings(value, key)]
    if isinstance(document, list):
        return [s for value in document for s in strings(value, key)]
    return []
