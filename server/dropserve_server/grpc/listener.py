"""The gRPC port: its options, its TLS, and the services behind it."""

from __future__ import annotations

import socket
from collections.abc import Sequence
from pathlib import Path

import grpc
import grpc.aio
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from dropserve.v1 import prediction_pb2, prediction_pb2_grpc
from dropserve_server.errors import StartupError
from dropserve_server.grpc.health import HealthServicer
from dropserve_server.grpc.prediction import PredictionServicer
from dropserve_server.settings import Settings

PREDICTION_SERVICE: str = prediction_pb2.DESCRIPTOR.services_by_name["PredictionService"].full_name
_HEALTH_SERVICE: str = health_pb2.DESCRIPTOR.services_by_name["Health"].full_name


def listen(
    settings: Settings,
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
    server = grpc.aio.server(interceptors=interceptors, options=_options(settings))
    prediction_pb2_grpc.add_PredictionServiceServicer_to_server(prediction, server)
    health_pb2_grpc.add_HealthServicer_to_server(health, server)
    services: Sequence[str] = (PREDICTION_SERVICE, _HEALTH_SERVICE, reflection.SERVICE_NAME)
    reflection.enable_server_reflection(services, server)
    address = f"{_bracketed(settings.host)}:{settings.grpc_port}"
    credentials = _credentials(settings.tls_certificate, settings.tls_key)
    try:
        if credentials is None:
            return server, server.add_insecure_port(address)
        return server, server.add_secure_port(address, credentials)
    except RuntimeError as error:
        if reason := _why_not(settings):
            raise StartupError(f"can't listen on gRPC port {address}: {reason}") from error
        raise StartupError(
            f"{settings.tls_certificate} and {settings.tls_key} are no certificate and its key in PEM form"
        ) from error


def _options(settings: Settings) -> list[tuple[str, int]]:
    return [
        ("grpc.max_receive_message_length", settings.max_message_bytes),
        ("grpc.max_send_message_length", settings.max_message_bytes),
        # With port sharing on, gRPC's default, a second server on the same port starts without an error
        # and takes every other connection. Workers are to share theirs, which their supervisor holds.
        ("grpc.so_reuseport", int(settings.workers > 1)),
    ]


def _credentials(certificate: Path | None, key: Path | None) -> grpc.ServerCredentials | None:
    if certificate is None or key is None:
        return None
    try:
        return grpc.ssl_server_credentials([(key.read_bytes(), certificate.read_bytes())])
    except OSError as error:
        raise StartupError(f"can't read {error.filename}: {error.strerror}") from error


def _why_not(settings: Settings) -> str:
    """Why gRPC, which doesn't say, could not listen there; empty where it is not for the address."""
    try:
        asked = settings.host, settings.grpc_port
        family, *_, address = socket.getaddrinfo(*asked, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, socket.SOCK_STREAM) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if settings.workers > 1:
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            probe.bind(address)
    except OSError as error:
        return error.strerror or str(error)
    return ""


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host and not host.startswith("[") else host
