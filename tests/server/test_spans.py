"""What a failed request's span says; those of the real server are in tests/e2e/test_traces.py."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import grpc
import pytest
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import StatusCode

from dropserve_server.errors import DeadlineExpired, InvalidRequest, QueueFull, Unavailable
from dropserve_server.grpc.calls import Calls
from dropserve_server.grpc.outcome import Outcome
from dropserve_server.grpc.spans import Tracer
from dropserve_server.grpc.status import INTERNAL_MESSAGE
from dropserve_server.metrics import DETERMINISTIC, Metrics


@pytest.fixture
def exporter() -> InMemorySpanExporter:
    return InMemorySpanExporter()


@pytest.fixture
def tracer(exporter: InMemorySpanExporter) -> Iterator[Tracer]:
    tracer = Tracer([exporter])
    yield tracer
    tracer.close(10)


@pytest.mark.parametrize(
    ("error", "code", "status", "description"),
    [
        (InvalidRequest("passes", "why"), grpc.StatusCode.INVALID_ARGUMENT, StatusCode.UNSET, None),
        (QueueFull("why"), grpc.StatusCode.RESOURCE_EXHAUSTED, StatusCode.UNSET, None),
        (DeadlineExpired("why"), grpc.StatusCode.DEADLINE_EXCEEDED, StatusCode.ERROR, "why"),
        (Unavailable("why"), grpc.StatusCode.UNAVAILABLE, StatusCode.ERROR, "why"),
        (ZeroDivisionError("why"), grpc.StatusCode.INTERNAL, StatusCode.ERROR, INTERNAL_MESSAGE),
    ],
)
def test_what_is_the_servers_fault_is_an_error(
    error: Exception,
    code: grpc.StatusCode,
    status: StatusCode,
    description: str | None,
    tracer: Tracer,
    exporter: InMemorySpanExporter,
) -> None:
    async def life() -> None:
        with Calls(Metrics(), tracer=tracer).begin(DETERMINISTIC, "", None):
            raise error

    with pytest.raises(type(error)):
        asyncio.run(life())
    tracer.close(10)
    (span,) = exporter.get_finished_spans()
    assert span.attributes is not None
    assert span.attributes["rpc.grpc.status_code"] == code.value[0]
    assert (span.status.status_code, span.status.description) == (status, description)
    # A bug brings its stack trace, as in the log.
    assert [event.name for event in span.events] == ["exception"] * (code is grpc.StatusCode.INTERNAL)


def test_the_log_is_given_the_spans_ids(tracer: Tracer, exporter: InMemorySpanExporter) -> None:
    fields = tracer.record(Outcome(grpc.StatusCode.OK, DETERMINISTIC, "", 1.0, 2.5, None, None))
    tracer.close(10)
    (span,) = exporter.get_finished_spans()
    assert span.context is not None
    assert fields == {"trace_id": f"{span.context.trace_id:032x}", "span_id": f"{span.context.span_id:016x}"}
    assert span.start_time is not None
    assert span.end_time is not None
    assert span.end_time - span.start_time == 1_500_000_000
