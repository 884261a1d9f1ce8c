"""Whether to trace requests with OpenTelemetry; as long as not, none of its packages is imported.

Switched on by the standard environment variables [1]_: ``OTEL_TRACES_EXPORTER``, or, where that is not
set, an OTLP endpoint. ``OTEL_SDK_DISABLED=true`` and ``OTEL_TRACES_EXPORTER=none`` switch it off.

References
----------
.. [1] https://opentelemetry.io/docs/specs/otel/configuration/sdk-environment-variables/
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import TYPE_CHECKING

from dropserve_server.logs import LOGGER

if TYPE_CHECKING:
    from dropserve_server.grpc.spans import Tracer

_ENDPOINTS = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
_PROTOCOLS = ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL")

log = logging.getLogger(LOGGER)


def exporters(environment: Mapping[str, str]) -> list[str]:
    """The exporters that the environment asks for, as the SDK's plug-ins are called; empty: no traces."""
    if environment.get("OTEL_SDK_DISABLED", "").strip().lower() == "true":
        return []
    asked = environment.get("OTEL_TRACES_EXPORTER", "").strip()
    if not asked and any(environment.get(name) for name in _ENDPOINTS):
        asked = "otlp"
    protocol = next((environment[name] for name in _PROTOCOLS if environment.get(name)), "grpc")
    otlp = "otlp_proto_" + protocol.strip().removesuffix("/protobuf")
    names = [name.strip() for name in asked.split(",")]
    return [otlp if name == "otlp" else name for name in names if name not in ("", "none")]


def start(environment: Mapping[str, str]) -> Tracer | None:
    """Begin to trace, if the environment asks for it and it can be done.

    What can't be done is logged and no error: variables of this kind are often set for a whole cluster,
    and a server without traces is better than none.
    """
    names = exporters(environment)
    if not names:
        return None
    try:
        from dropserve_server.grpc.spans import Tracer
    except ImportError as error:
        _warn(f"{error.name or error} is not installed: pip install 'dropserve[otel]'")
        return None
    except ValueError as error:  # a propagator is not installed
        _warn(str(error))
        return None
    try:
        tracer = Tracer.exporting_to(names)
    except Exception as error:  # noqa: BLE001  # whatever a plug-in raises where a variable of its is wrong
        _warn(str(error))
        return None
    log.info("tracing", extra={"exporters": names})
    return tracer


def _warn(reason: str) -> None:
    log.warning("no traces", extra={"reason": reason})
