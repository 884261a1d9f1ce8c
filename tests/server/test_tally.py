"""Plain counts, handed to prometheus_client."""

from __future__ import annotations

import random
import threading

import pytest
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from dropserve_server.tally import CounterTally, HistogramTally


def test_a_counter_gets_what_was_counted_once() -> None:
    registry = CollectorRegistry()
    tally = CounterTally(Counter("c", "", registry=registry))
    tally.inc()
    tally.inc(4)
    assert registry.get_sample_value("c_total") == 0
    for _ in range(2):
        tally.flush()
        assert registry.get_sample_value("c_total") == 5


def test_a_gauge_goes_up_and_down_with_several_tallies() -> None:
    registry = CollectorRegistry()
    gauge = Gauge("g", "", registry=registry)
    one, other = CounterTally(gauge), CounterTally(gauge)
    one.inc(7)
    other.inc(2)
    one.inc(-3)
    for tally in (one, other):
        tally.flush()
    assert registry.get_sample_value("g") == 6


def test_a_histogram_is_what_prometheus_client_would_have_made_of_it() -> None:
    registry = CollectorRegistry()
    bounds = [0.1, 1.0, 10.0]
    single = Histogram("single", "", buckets=bounds, registry=registry)
    tally = HistogramTally(Histogram("bulk", "", buckets=bounds, registry=registry))
    draw = random.Random(0)
    for value in [0.1, 1.0, 10.0, 0.0, 1e9, *(10 ** draw.uniform(-2, 2) for _ in range(200))]:
        single.observe(value)
        tally.observe(value)
        if draw.random() < 0.1:
            tally.flush()
    tally.flush()
    for le in ("0.1", "1.0", "10.0", "+Inf"):
        expected = registry.get_sample_value("single_bucket", {"le": le})
        assert registry.get_sample_value("bulk_bucket", {"le": le}) == expected
    for suffix in ("count", "sum"):
        expected = registry.get_sample_value(f"single_{suffix}")
        assert registry.get_sample_value(f"bulk_{suffix}") == pytest.approx(expected)


def test_flushing_while_counting_loses_nothing() -> None:
    registry = CollectorRegistry()
    tally = HistogramTally(Histogram("h", "", buckets=[0.5], registry=registry))
    counting = threading.Event()
    counting.set()

    def flush() -> None:
        while counting.is_set():
            tally.flush()

    flushing = threading.Thread(target=flush)
    flushing.start()
    for _ in range(20_000):
        tally.observe(1.0)
    counting.clear()
    flushing.join(10)
    tally.flush()
    assert registry.get_sample_value("h_count") == 20_000
    assert registry.get_sample_value("h_sum") == 20_000
