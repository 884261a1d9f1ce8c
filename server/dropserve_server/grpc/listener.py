"""The gRPC ports: their options, their TLS, and the services behind them."""

from __future__ import annotations

import socket
from collections.abc import Sequence
from pathlib import Path

import grpc
import grpc.aio
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection, reflection_pb2

from dropserve.inference import service_pb2, service_pb2_grpc
from dropserve.v1 import administration_pb2, administration_pb2_grpc, prediction_pb2, prediction_pb2_grpc
from dropserve_server.errors import StartupError
from dropserve_server.grpc.administration import ModelServicer
from dropserve_server.grpc.descriptors import pool_of
from dropserve_server.grpc.health import HealthServicer
from dropserve_server.grpc.open_inference import OpenInferenceServicer
from dropserve_server.grpc.prediction import PredictionServicer
from dropserve_server.settings import Settings

PREDICTION_SERVICE: str = prediction_pb2.DESCRIPTOR.services_by_name["PredictionService"].full_name
_MODEL_SERVICE: str = administration_pb2.DESCRIPTOR.services_by_name["ModelService"].full_name
OPEN_INFERENCE_SERVICE: str = service_pb2.DESCRIPTOR.services_by_name["GRPCInferenceService"].full_name
_HEALTH_SERVICE: str = health_pb2.DESCRIPTOR.services_by_name["Health"].full_name


def listen(
    settings: Settings,
    prediction: PredictionServicer,
    open_inference: OpenInferenceServicer,
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
    service_pb2_grpc.add_GRPCInferenceServiceServicer_to_server(open_inference, server)
    health_pb2_grpc.add_HealthServicer_to_server(health, server)
    services: Sequence[str] = (
        PREDICTION_SERVICE, OPEN_INFERENCE_SERVICE, _HEALTH_SERVICE, reflection.SERVICE_NAME,
    )  # fmt: skip
    descriptors = pool_of(prediction_pb2, service_pb2, health_pb2, reflection_pb2)
    reflection.enable_server_reflection(services, server, descriptors)
    return server, _bind(server, "gRPC", settings.host, settings.grpc_port, settings)


def listen_to_administrators(
    settings: Settings,
    models: ModelServicer,
    interceptors: Sequence[grpc.aio.ServerInterceptor] = (),
) -> tuple[grpc.aio.Server, int] | None:
    """The same for the admin port, where there is to be one.

    Raises
    ------
    StartupError
        The port can't be bound, or the certificate or its key can't be used.
    """
    if settings.admin_port is None:
        return None
    server = grpc.aio.server(interceptors=interceptors, options=_options(settings))
    administration_pb2_grpc.add_ModelServiceServicer_to_server(models, server)
    reflection.enable_server_reflection((_MODEL_SERVICE, reflection.SERVICE_NAME), server)
    return server, _bind(server, "admin", settings.admin_host, settings.admin_port, settings)


def _bind(server: grpc.aio.Server, name: str, host: str, port: int, settings: Settings) -> int:
    """Bind `server`, and return its port."""
    address = f"{_bracketed(host)}:{port}"
    credentials = _credentials(settings.tls_certificate, settings.tls_key)
    try:
        if credentials is None:
            return server.add_insecure_port(address)
        return server.add_secure_port(address, credentials)
    except RuntimeError as error:
        if reason := _why_not(host, port, shared=settings.workers > 1):
            raise StartupError(f"can't listen on {name} port {address}: {reason}") from error
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


def _why_not(host: str, port: int, *, shared: bool) -> str:
    """Why gRPC, which doesn't say, could not listen there; empty where it is not for the address."""
    try:
        family, *_, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, socket.SOCK_STREAM) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if shared:
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            probe.bind(address)
    except OSError as error:
        return error.strerror or str(error)
    return ""


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host and not host.startswith("[") else host
