"""The gRPC port: its options, and the services behind it."""

from __future__ import annotations

import socket
from collections.abc import Sequence

import grpc.aio
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection, reflection_pb2_grpc

from dropserve.v1 import prediction_pb2, prediction_pb2_grpc
from dropserve_server.errors import StartupError
from dropserve_server.grpc.decoding import add_service
from dropserve_server.grpc.health import HealthServicer
from dropserve_server.grpc.prediction import PredictionServicer
from dropserve_server.grpc.protection import Protection
from dropserve_server.settings import Settings

PREDICTION_SERVICE: str = prediction_pb2.DESCRIPTOR.services_by_name["PredictionService"].full_name
_HEALTH_SERVICE: str = health_pb2.DESCRIPTOR.services_by_name["Health"].full_name

_KEEPALIVE_ANSWER_SECONDS = 20.0


def listen(
    settings: Settings,
    protection: Protection,
    prediction: PredictionServicer,
    health: HealthServicer,
    interceptors: Sequence[grpc.aio.ServerInterceptor] = (),
) -> tuple[grpc.aio.Server, int]:
    """A server bound to its port, not yet started, and that port.

    Raises
    ------
    StartupError
        The port can't be bound, or the certificate or its key can't be used.
    """
    server = grpc.aio.server(
        interceptors=(*protection.interceptors, *interceptors), options=options(settings)
    )
    add_service(server, prediction_pb2_grpc.add_PredictionServiceServicer_to_server, prediction)
    add_service(server, health_pb2_grpc.add_HealthServicer_to_server, health)
    services: Sequence[str] = (PREDICTION_SERVICE, _HEALTH_SERVICE, reflection.SERVICE_NAME)
    add_service(
        server,
        reflection_pb2_grpc.add_ServerReflectionServicer_to_server,
        reflection.aio.ReflectionServicer(services),
    )
    address = f"{_bracketed(settings.host)}:{settings.grpc_port}"
    credentials = protection.credentials()
    try:
        if credentials is None:
            return server, server.add_insecure_port(address)
        return server, server.add_secure_port(address, credentials)
    except RuntimeError as error:
        if reason := _why_not(settings.host, settings.grpc_port):
            raise StartupError(f"can't listen on gRPC port {address}: {reason}") from error
        raise StartupError(
            f"gRPC can't use the certificate {settings.tls_certificate} with the key {settings.tls_key}"
        ) from error


def options(settings: Settings) -> list[tuple[str, int]]:
    """The channel arguments of a gRPC port."""
    chosen = {
        "grpc.max_receive_message_length": settings.max_message_bytes,
        "grpc.max_send_message_length": settings.max_message_bytes,
        # Between the two limits gRPC refuses calls at random.
        "grpc.max_metadata_size": settings.max_header_bytes,
        "grpc.absolute_max_metadata_size": settings.max_header_bytes,
        "grpc.max_allowed_incoming_connections": settings.max_connections,
        "grpc.max_concurrent_streams": settings.max_streams,
        "grpc.server_handshake_timeout_ms": _milliseconds(settings.handshake_seconds),
        "grpc.keepalive_time_ms": _milliseconds(settings.keepalive_seconds),
        "grpc.keepalive_timeout_ms": _milliseconds(_KEEPALIVE_ANSWER_SECONDS),
        "grpc.http2.min_ping_interval_without_data_ms": _milliseconds(settings.min_ping_seconds),
        # Else a client that pings between calls is held to two hours, and never asked by us.
        "grpc.keepalive_permit_without_calls": 1,
        # With port sharing on, gRPC's default, a second server on the same port starts without an error
        # and takes every other connection.
        "grpc.so_reuseport": 0,
    }
    if settings.connection_age_seconds is not None:
        chosen["grpc.max_connection_age_ms"] = _milliseconds(settings.connection_age_seconds)
        chosen["grpc.max_connection_age_grace_ms"] = _milliseconds(settings.connection_grace_seconds)
    return list(chosen.items())


def _milliseconds(seconds: float) -> int:
    return round(seconds * 1000)


def _why_not(host: str, port: int) -> str:
    """Why gRPC, which doesn't say, could not listen there; empty where it is not for the address."""
    try:
        family, *_, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, socket.SOCK_STREAM) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
    except OSError as error:
        return error.strerror or str(error)
    return ""


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host and not host.startswith("[") else host
