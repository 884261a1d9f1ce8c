"""Which environment variables switch traces on, and that nothing is paid for them while they are off."""

from __future__ import annotations

import logging
import subprocess
import sys

import pytest

from dropserve_server.grpc import tracing

ENDPOINT = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://collector:4317"}


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({}, []),
        (ENDPOINT, ["otlp_proto_grpc"]),
        ({"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://collector:4317"}, ["otlp_proto_grpc"]),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": ""}, []),
        ({"OTEL_TRACES_EXPORTER": "otlp"}, ["otlp_proto_grpc"]),
        ({"OTEL_TRACES_EXPORTER": " console, otlp"}, ["console", "otlp_proto_grpc"]),
        (ENDPOINT | {"OTEL_TRACES_EXPORTER": "none"}, []),
        (ENDPOINT | {"OTEL_SDK_DISABLED": "True"}, []),
        (ENDPOINT | {"OTEL_SDK_DISABLED": "false"}, ["otlp_proto_grpc"]),
        (ENDPOINT | {"OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf"}, ["otlp_proto_http"]),
        (
            ENDPOINT
            | {"OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf", "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL": "grpc"},
            ["otlp_proto_grpc"],
        ),
        ({"OTEL_METRICS_EXPORTER": "otlp", "OTEL_SERVICE_NAME": "mine"}, []),
    ],
)
def test_the_standard_variables_choose_the_exporters(
    environment: dict[str, str], expected: list[str]
) -> None:
    assert tracing.exporters(environment) == expected


def test_without_the_packages_one_line_tells_how_to_get_them(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.delitem(sys.modules, "dropserve_server.grpc.spans", raising=False)
    for name in ("opentelemetry", "opentelemetry.context"):
        monkeypatch.setitem(sys.modules, name, None)
    assert tracing.start(ENDPOINT) is None
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    assert vars(record)["reason"] == "opentelemetry is not installed: pip install 'dropserve[otel]'"


def test_nothing_of_opentelemetry_is_imported_while_traces_are_off() -> None:
    program = (
        "import sys, dropserve_server.server\n"
        "from dropserve_server.grpc import tracing\n"
        "assert tracing.start({}) is None\n"
        "print(sorted(name for name in sys.modules if name.startswith('opentelemetry')))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout == "[]\n"
