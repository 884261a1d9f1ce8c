"""An OpenTelemetry collector, in this process: takes spans over OTLP/gRPC and keeps them."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import grpc
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2, trace_service_pb2_grpc
from opentelemetry.proto.common.v1.common_pb2 import KeyValue
from opentelemetry.proto.trace.v1 import trace_pb2

TIMEOUT = 60.0


@dataclass(frozen=True)
class ReceivedSpan:
    """A span as it came over the wire; ids as hexadecimal digits, times in seconds of the epoch."""

    name: str
    trace_id: str
    span_id: str
    parent_id: str
    kind: str
    begin: float
    end: float
    attributes: dict[str, Any]
    resource: dict[str, Any]
    status: str
    events: tuple[str, ...]


class Collector(trace_service_pb2_grpc.TraceServiceServicer):
    """Keeps what it is sent."""

    def __init__(self) -> None:
        self.endpoint = ""
        self._spans: list[ReceivedSpan] = []
        self._news = threading.Condition()

    def Export(
        self, request: trace_service_pb2.ExportTraceServiceRequest, context: grpc.ServicerContext
    ) -> trace_service_pb2.ExportTraceServiceResponse:
        with self._news:
            for resource_spans in request.resource_spans:
                resource = _values(resource_spans.resource.attributes)
                for scope in resource_spans.scope_spans:
                    self._spans.extend(_received(span, resource) for span in scope.spans)
            self._news.notify_all()
        return trace_service_pb2.ExportTraceServiceResponse()

    def spans(self, trace_id: str, count: int) -> list[ReceivedSpan]:
        """The spans of one trace, by their begin; waits until there are `count` of them."""
        return self._wait(lambda span: span.trace_id == trace_id, count)

    def all_spans(self, count: int) -> list[ReceivedSpan]:
        """Every span; waits until there are `count`."""
        return self._wait(lambda span: True, count)

    def _wait(self, wanted: Callable[[ReceivedSpan], bool], count: int) -> list[ReceivedSpan]:
        with self._news:
            if not self._news.wait_for(lambda: sum(map(wanted, self._spans)) >= count, TIMEOUT):
                raise AssertionError(f"not {count} spans came; these did: {self._spans}")
            return sorted(filter(wanted, self._spans), key=lambda span: (span.begin, -span.end))


@contextmanager
def otlp_collector() -> Iterator[Collector]:
    """Run one on a free loopback port for the time of the context."""
    collector = Collector()
    server = grpc.server(ThreadPoolExecutor(1))
    trace_service_pb2_grpc.add_TraceServiceServicer_to_server(collector, server)  # type: ignore[no-untyped-call]
    collector.endpoint = f"http://127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
    server.start()
    try:
        yield collector
    finally:
        server.stop(None).wait(TIMEOUT)


def _received(span: trace_pb2.Span, resource: dict[str, Any]) -> ReceivedSpan:
    return ReceivedSpan(
        name=span.name,
        trace_id=span.trace_id.hex(),
        span_id=span.span_id.hex(),
        parent_id=span.parent_span_id.hex(),
        kind=trace_pb2.Span.SpanKind.Name(span.kind).removeprefix("SPAN_KIND_"),
        begin=span.start_time_unix_nano / 1e9,
        end=span.end_time_unix_nano / 1e9,
        attributes=_values(span.attributes),
        resource=resource,
        status=trace_pb2.Status.StatusCode.Name(span.status.code).removeprefix("STATUS_CODE_"),
        events=tuple(event.name for event in span.events),
    )


def _values(attributes: Any) -> dict[str, Any]:
    def value(attribute: KeyValue) -> Any:
        return getattr(attribute.value, attribute.value.WhichOneof("value") or "string_value")

    return {attribute.key: value(attribute) for attribute in attributes}
