"""The gRPC ports: their options, and the services behind them."""

from __future__ import annotations

import socket
from collections.abc import Sequence
from functools import partial

import grpc.aio
from google.protobuf.descriptor_pool import DescriptorPool
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection, reflection_pb2, reflection_pb2_grpc

from dropserve.inference import service_pb2, service_pb2_grpc
from dropserve.v1 import administration_pb2, administration_pb2_grpc, prediction_pb2, prediction_pb2_grpc
from dropserve_server.errors import StartupError
from dropserve_server.grpc.administration import ModelServicer
from dropserve_server.grpc.announcement import Received, Reception
from dropserve_server.grpc.decoding import add_service
from dropserve_server.grpc.descriptors import pool_of
from dropserve_server.grpc.health import HealthServicer
from dropserve_server.grpc.open_inference import OpenInferenceServicer
from dropserve_server.grpc.prediction import PredictionServicer
from dropserve_server.grpc.protection import Protection
from dropserve_server.settings import Settings

PREDICTION_SERVICE: str = prediction_pb2.DESCRIPTOR.services_by_name["PredictionService"].full_name
_MODEL_SERVICE: str = administration_pb2.DESCRIPTOR.services_by_name["ModelService"].full_name
OPEN_INFERENCE_SERVICE: str = service_pb2.DESCRIPTOR.services_by_name["GRPCInferenceService"].full_name
_HEALTH_SERVICE: str = health_pb2.DESCRIPTOR.services_by_name["Health"].full_name

_KEEPALIVE_ANSWER_SECONDS = 20.0
_ANY_NUMBER = 2**31 - 1


def listen(
    settings: Settings,
    protection: Protection,
    prediction: PredictionServicer,
    open_inference: OpenInferenceServicer,
    health: HealthServicer,
    reception: Reception,
    interceptors: Sequence[grpc.aio.ServerInterceptor] = (),
) -> tuple[grpc.aio.Server, int]:
    """A server bound to its port, not yet started, and that port.

    Raises
    ------
    StartupError
        The port can't be bound, or the certificate or its key can't be used.
    """
    server = _server(settings, protection, interceptors)
    before = partial(Received, reception)
    add_service(server, prediction_pb2_grpc.add_PredictionServiceServicer_to_server, prediction, before)
    add_service(server, service_pb2_grpc.add_GRPCInferenceServiceServicer_to_server, open_inference, before)
    add_service(server, health_pb2_grpc.add_HealthServicer_to_server, health)
    services = (PREDICTION_SERVICE, OPEN_INFERENCE_SERVICE, _HEALTH_SERVICE, reflection.SERVICE_NAME)
    _reflect(server, services, pool_of(prediction_pb2, service_pb2, health_pb2, reflection_pb2))
    return server, _bind(server, "gRPC", settings.host, settings.grpc_port, settings, protection)


def listen_to_administrators(
    settings: Settings, protection: Protection, models: ModelServicer
) -> tuple[grpc.aio.Server, int] | None:
    """The same for the admin port, where there is to be one.

    Raises
    ------
    StartupError
        The port can't be bound, or the certificate or its key can't be used.
    """
    if settings.admin_port is None:
        return None
    server = _server(settings, protection)
    add_service(server, administration_pb2_grpc.add_ModelServiceServicer_to_server, models)
    _reflect(server, (_MODEL_SERVICE, reflection.SERVICE_NAME), pool_of(administration_pb2, reflection_pb2))
    return server, _bind(server, "admin", settings.admin_host, settings.admin_port, settings, protection)


def _server(
    settings: Settings, protection: Protection, interceptors: Sequence[grpc.aio.ServerInterceptor] = ()
) -> grpc.aio.Server:
    return grpc.aio.server(interceptors=(*protection.interceptors, *interceptors), options=options(settings))


def _reflect(server: grpc.aio.Server, services: Sequence[str], descriptors: DescriptorPool) -> None:
    servicer = reflection.aio.ReflectionServicer(services, pool=descriptors)
    add_service(server, reflection_pb2_grpc.add_ServerReflectionServicer_to_server, servicer)


def _bind(
    server: grpc.aio.Server, name: str, host: str, port: int, settings: Settings, protection: Protection
) -> int:
    """Bind `server`, and return its port."""
    address = f"{_bracketed(host)}:{port}"
    credentials = protection.credentials()
    try:
        if credentials is None:
            return server.add_insecure_port(address)
        return server.add_secure_port(address, credentials)
    except RuntimeError as error:
        if reason := _why_not(host, port, shared=settings.workers > 1):
            raise StartupError(f"can't listen on {name} port {address}: {reason}") from error
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
        # Of more than 1000 calls that wait to be taken in gRPC cancels some without a word. Who is refused
        # is to hear why, and when to come again. What waits is bounded by streams and their windows.
        "grpc.server.max_pending_requests": _ANY_NUMBER,
        "grpc.server.max_pending_requests_hard_limit": _ANY_NUMBER,
        "grpc.server_handshake_timeout_ms": _milliseconds(settings.handshake_seconds),
        "grpc.keepalive_time_ms": _milliseconds(settings.keepalive_seconds),
        "grpc.keepalive_timeout_ms": _milliseconds(_KEEPALIVE_ANSWER_SECONDS),
        "grpc.http2.min_ping_interval_without_data_ms": _milliseconds(settings.min_ping_seconds),
        # Else a client that pings between calls is held to two hours, and never asked by us.
        "grpc.keepalive_permit_without_calls": 1,
        # With port sharing on, gRPC's default, a second server on the same port starts without an error
        # and takes every other connection. Workers are to share theirs, which their supervisor holds.
        "grpc.so_reuseport": int(settings.workers > 1),
    }
    if settings.connection_age_seconds is not None:
        chosen["grpc.max_connection_age_ms"] = _milliseconds(settings.connection_age_seconds)
        chosen["grpc.max_connection_age_grace_ms"] = _milliseconds(settings.connection_grace_seconds)
    return list(chosen.items())


def _milliseconds(seconds: float) -> int:
    return round(seconds * 1000)


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
