"""OpenTelemetry traces of the real server, received by a collector over OTLP."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest

from dropserve.v1.prediction_pb2 import MonteCarlo
from support.example_repository import rows_for
from support.otlp_collector import Collector, ReceivedSpan, otlp_collector
from support.prediction_client import Asker, request
from support.server_process import ServerProcess, server_process

TIMEOUT = 60.0
CALLER = "00f067aa0ba902b7"
NOT_LONG = 20.0


@pytest.fixture(scope="module")
def collector() -> Iterator[Collector]:
    with otlp_collector() as collector:
        yield collector


@pytest.fixture(scope="module")
def traced(repository: Path, collector: Collector) -> Iterator[ServerProcess]:
    variables = {
        "OTEL_EXPORTER_OTLP_ENDPOINT": collector.endpoint,
        "OTEL_BSP_SCHEDULE_DELAY": "50",
        "OTEL_RESOURCE_ATTRIBUTES": "deployment.environment.name=test",
    }
    with server_process(repository, "--log-requests", "1", variables=variables) as server:
        yield server


@pytest.fixture(scope="module")
def ask_traced(traced: ServerProcess) -> Iterator[Asker]:
    with grpc.insecure_channel(traced.address) as channel:
        yield Asker(channel)


def caller(trace_id: str, sampled: bool = True) -> dict[str, Any]:
    """What W3C Trace Context asks a caller to send."""
    traceparent = f"00-{trace_id}-{CALLER}-{'01' if sampled else '00'}"
    return {"metadata": (("traceparent", traceparent),), "timeout": TIMEOUT}


def test_a_request_is_a_span_below_its_callers_with_the_queue_and_the_computing_below_it(
    traced: ServerProcess, ask_traced: Asker, collector: Collector
) -> None:
    trace_id = "4bf92f3577b34da6a3ce929d0e0e4736"
    before = time.time()
    message = request("targets", rows_for("targets", 3), MonteCarlo(passes=30), request_id="mine")
    ask_traced.stub.Predict(message, **caller(trace_id))
    after = time.time()

    server, queue, compute = collector.spans(trace_id, 3)
    assert (server.name, server.kind) == ("dropserve.v1.PredictionService/Predict", "SERVER")
    assert server.parent_id == CALLER
    assert server.attributes == {
        "rpc.system": "grpc",
        "rpc.service": "dropserve.v1.PredictionService",
        "rpc.method": "Predict",
        "rpc.grpc.status_code": 0,
        "dropserve.model": "targets",
        "dropserve.version": "2",
        "dropserve.mode": "monte_carlo",
        "dropserve.request_id": "mine",
        "dropserve.rows": 3,
        "dropserve.passes": 30,
    }
    assert server.status == "UNSET"
    assert server.resource["service.name"] == "dropserve"
    assert server.resource["deployment.environment.name"] == "test"

    assert (queue.name, compute.name) == ("queue", "compute")
    assert queue.parent_id == compute.parent_id == server.span_id
    slack = 0.005  # between this process's readings of the clock and the server's
    assert before - slack <= server.begin <= queue.begin <= queue.end == compute.begin
    assert compute.begin < compute.end <= server.end <= after + slack

    line = traced.wait_for("request answered", request_id="mine")
    assert (line["trace_id"], line["span_id"]) == (trace_id, server.span_id)


def test_each_request_of_a_stream_is_a_span_below_the_streams_caller(
    ask_traced: Asker, collector: Collector
) -> None:
    trace_id = "4bf92f3577b34da6a3ce929d0e0e4737"
    messages = [request("targets", rows_for("targets", 1), request_id=str(n)) for n in range(3)]
    assert len(list(ask_traced.stub.PredictStream(iter(messages), **caller(trace_id)))) == 3

    spans = collector.spans(trace_id, 9)
    servers = [span for span in spans if span.kind == "SERVER"]
    assert {span.name for span in servers} == {"dropserve.v1.PredictionService/PredictStream"}
    assert {span.parent_id for span in servers} == {CALLER}
    assert sorted(span.attributes["dropserve.request_id"] for span in servers) == ["0", "1", "2"]
    for server in servers:
        assert [span.name for span in spans if span.parent_id == server.span_id] == ["queue", "compute"]


@pytest.mark.parametrize(
    ("model", "code", "number"),
    [("nothing", grpc.StatusCode.NOT_FOUND, 5), ("wave", grpc.StatusCode.FAILED_PRECONDITION, 9)],
)
def test_a_callers_mistake_is_a_span_that_is_no_error(
    model: str, code: grpc.StatusCode, number: int, ask_traced: Asker, collector: Collector
) -> None:
    trace_id = f"4bf92f3577b34da6a3ce929d0e0e480{number}"
    with pytest.raises(grpc.RpcError) as refusal:
        ask_traced.stub.Predict(request(model, rows_for("targets", 1), MonteCarlo()), **caller(trace_id))
    assert refusal.value.code() == code
    (span,) = collector.spans(trace_id, 1)
    assert (span.attributes["rpc.grpc.status_code"], span.status) == (number, "UNSET")
    assert span.attributes["dropserve.model"] == ("unknown" if model == "nothing" else model)


def test_requests_of_callers_without_a_trace_begin_their_own_and_unsampled_ones_are_left_out(
    ask_traced: Asker, collector: Collector
) -> None:
    unsampled = "4bf92f3577b34da6a3ce929d0e0e4739"
    message = request("plain", rows_for("plain", 1), request_id="unsampled")
    ask_traced.stub.Predict(message, **caller(unsampled, sampled=False))
    for traceparent in ("", "00-nonsense", f"00-{'0' * 32}-{CALLER}-01"):
        message = request("plain", rows_for("plain", 1), request_id=f"own {traceparent}")
        ask_traced.stub.Predict(message, metadata=(("traceparent", traceparent),), timeout=TIMEOUT)

    def own(spans: list[ReceivedSpan]) -> list[ReceivedSpan]:
        return [s for s in spans if str(s.attributes.get("dropserve.request_id")).startswith("own ")]

    count = 3
    while len(roots := own(collector.all_spans(count))) < 3:
        count += 1
    assert {span.parent_id for span in roots} == {""}
    assert len({span.trace_id for span in roots}) == 3
    # Spans leave in the order in which requests end, so this one would have come before them.
    assert not any(span.trace_id == unsampled for span in collector.all_spans(count))


def test_what_was_not_exported_yet_is_when_the_server_stops(repository: Path, collector: Collector) -> None:
    trace_id = "4bf92f3577b34da6a3ce929d0e0e4740"
    variables = {"OTEL_EXPORTER_OTLP_ENDPOINT": collector.endpoint, "OTEL_BSP_SCHEDULE_DELAY": "3600000"}
    with server_process(repository, variables=variables) as server:
        with grpc.insecure_channel(server.address) as channel:
            Asker(channel).stub.Predict(request("plain", rows_for("plain", 1)), **caller(trace_id))
        assert server.stop() == 0
    assert len(collector.spans(trace_id, 3)) == 3


def test_a_collector_that_is_away_holds_nobody_up(repository: Path) -> None:
    variables = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:1", "OTEL_BSP_SCHEDULE_DELAY": "50"}
    with server_process(repository, variables=variables) as server:
        with grpc.insecure_channel(server.address) as channel:
            Asker(channel).predict("plain", rows_for("plain", 1))
        started = time.monotonic()
        server.signal(signal.SIGTERM)
        assert server.wait() == 0
        assert time.monotonic() - started < NOT_LONG
    assert server.other_lines == []


def test_what_can_not_be_traced_with_is_told_and_served_without(repository: Path) -> None:
    with server_process(repository, variables={"OTEL_TRACES_EXPORTER": "zipkin"}) as server:
        line = server.wait_for("no traces")
        assert line["level"] == "warning"
        assert line["reason"] == "no OpenTelemetry exporter 'zipkin' is installed"
        with grpc.insecure_channel(server.address) as channel:
            Asker(channel).predict("plain", rows_for("plain", 1))
