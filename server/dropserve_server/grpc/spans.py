"""One request's OpenTelemetry spans: the server's, and below it the wait in the queue and the computing.

They are made when the request is over, from the times that were taken anyway: until then a request
carries nothing but its caller's trace context. Attributes follow the semantic conventions for gRPC [1]_
as OpenTelemetry's own gRPC instrumentation does.

References
----------
.. [1] https://opentelemetry.io/docs/specs/semconv/rpc/grpc/
"""

from __future__ import annotations

import threading
from collections.abc import Awaitable, Callable, Sequence
from importlib.metadata import entry_points, version
from time import perf_counter_ns, time_ns
from typing import Any

import grpc
import grpc.aio
from opentelemetry import context, propagate, trace
from opentelemetry.sdk.resources import SERVICE_NAME, SERVICE_VERSION, OTELResourceDetector, Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter

from dropserve_server.grpc.outcome import Outcome
from dropserve_server.grpc.status import message_of

_METHOD = context.create_key("dropserve-method")

# The server's fault, says the convention; the other codes are the caller's.
_SERVER_FAULTS = {
    grpc.StatusCode.UNKNOWN,
    grpc.StatusCode.DEADLINE_EXCEEDED,
    grpc.StatusCode.UNIMPLEMENTED,
    grpc.StatusCode.INTERNAL,
    grpc.StatusCode.UNAVAILABLE,
    grpc.StatusCode.DATA_LOSS,
}


class CallerContext(grpc.aio.ServerInterceptor):
    """Keeps what a call's metadata tell of its caller's trace, for as long as the call is answered."""

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[grpc.RpcMethodHandler[Any, Any] | None]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> grpc.RpcMethodHandler[Any, Any] | None:
        """Attach the context; never detached, because every call is answered in a task of its own."""
        caller = propagate.extract(dict(handler_call_details.invocation_metadata), context.Context())
        context.attach(context.set_value(_METHOD, handler_call_details.method, caller))
        return await continuation(handler_call_details)


class Tracer:
    """Turns requests into spans.

    Parameters
    ----------
    exporters : sequence of SpanExporter
        Where finished spans go, in batches, from threads of their own.
    """

    def __init__(self, exporters: Sequence[SpanExporter]) -> None:
        # The environment's names win over ours; sampler and limits come from it as well.
        ours = Resource({SERVICE_NAME: "dropserve", SERVICE_VERSION: version("dropserve")})
        resource = Resource.create(ours.merge(OTELResourceDetector().detect()).attributes)
        self._provider = TracerProvider(resource=resource, shutdown_on_exit=False)
        for exporter in exporters:
            self._provider.add_span_processor(BatchSpanProcessor(exporter))
        self._tracer = self._provider.get_tracer("dropserve", version("dropserve"))
        self.interceptor = CallerContext()

    @classmethod
    def exporting_to(cls, names: Sequence[str]) -> Tracer:
        """A tracer with exporters by the names of their plug-ins, set up by their environment variables.

        Raises
        ------
        LookupError
            One is not installed.
        """
        exporters: list[SpanExporter] = []
        for name in names:
            plugins = entry_points(group="opentelemetry_traces_exporter", name=name)
            if not plugins:
                raise LookupError(f"no OpenTelemetry exporter {name!r} is installed")
            exporters.append(next(iter(plugins)).load()())
        return cls(exporters)

    def record(self, outcome: Outcome) -> dict[str, str]:
        """Make the spans of a request that is over; the log's fields that lead to them."""
        # Taken each time: the wall clock may have been set since.
        epoch = time_ns() - perf_counter_ns()

        def at(seconds: float) -> int:
            return epoch + int(seconds * 1e9)

        method = str(context.get_value(_METHOD) or "/").removeprefix("/")
        service, _, rpc = method.partition("/")
        span = self._tracer.start_span(
            method,
            kind=trace.SpanKind.SERVER,
            attributes={
                "rpc.system": "grpc",
                "rpc.service": service,
                "rpc.method": rpc,
                "rpc.grpc.status_code": outcome.code.value[0],
                **_attributes(outcome),
            },
            start_time=at(outcome.started),
        )
        if span.is_recording():
            below = trace.set_span_in_context(span)
            if (job := outcome.job) is not None:
                self._tracer.start_span("queue", below, start_time=at(job.queued)).end(at(job.begun))
                self._tracer.start_span("compute", below, start_time=at(job.begun)).end(at(job.finished))
            if outcome.error is not None and outcome.code in _SERVER_FAULTS:
                span.set_status(trace.StatusCode.ERROR, message_of(outcome.error))
            if outcome.error is not None and outcome.code is grpc.StatusCode.INTERNAL:
                span.record_exception(outcome.error)
        span.end(at(outcome.finished))
        ids = span.get_span_context()
        return {"trace_id": trace.format_trace_id(ids.trace_id), "span_id": trace.format_span_id(ids.span_id)}

    def close(self, timeout: float) -> None:
        """Export what is left, for at most `timeout` seconds."""
        # The SDK itself would wait for as long as a collector that is away may be tried again.
        closing = threading.Thread(target=self._provider.shutdown, name="traces", daemon=True)
        closing.start()
        closing.join(timeout)


def _attributes(outcome: Outcome) -> dict[str, str | int]:
    attributes: dict[str, str | int] = {
        "dropserve.model": outcome.model,
        "dropserve.version": outcome.version,
        "dropserve.mode": outcome.mode,
    }
    if outcome.request_id:
        attributes["dropserve.request_id"] = outcome.request_id
    if outcome.job is not None:
        attributes["dropserve.rows"] = outcome.job.rows
    if outcome.passes:
        attributes["dropserve.passes"] = outcome.passes
    return attributes
