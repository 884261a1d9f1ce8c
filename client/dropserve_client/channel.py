"""How a channel to a server is set up: limits, keepalive, retries, load balancing, TLS, tokens."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any, Final, Literal

import grpc

from dropserve.v1 import administration_pb2, prediction_pb2
from dropserve.v1.administration_pb2_grpc import ModelServiceStub
from dropserve.v1.prediction_pb2_grpc import PredictionServiceStub
from dropserve_client import foreign
from dropserve_client.errors import InputError

LoadBalancing = Literal["pick_first", "round_robin"]

_TOKEN: Final = re.compile(r"[A-Za-z0-9._~+/-]+=*")
"""What RFC 6750 calls b64token."""

_URLS: Final = ("http://", "https://")

REQUEST_BYTES: Final = 4 * 2**20 - 2**16
"""The largest request the SDK sends: what every gRPC server accepts, less room for the envelope."""

REQUEST_ROWS: Final = 4096
"""The most rows in one request: enough to be computed at full speed, and a fair share of a queue."""

_RETRY_POLICY: Final = {
    "maxAttempts": 5,
    "initialBackoff": "0.1s",
    "maxBackoff": "1s",
    "backoffMultiplier": 2,
    # CANCELLED: what a gRPC server that shuts down answers to calls it has not looked at (grpc#41785).
    # A call that is cancelled on this side is not retried.
    "retryableStatusCodes": ["UNAVAILABLE", "CANCELLED"],
}


@dataclass(frozen=True, slots=True)
class TlsConfig:
    """Certificates for a TLS channel, each a PEM file's path or its content in bytes.

    Attributes
    ----------
    root_certificates : path or bytes, optional
        Whom to trust. None: what gRPC trusts by default.
    client_key, client_certificate : path or bytes, optional
        For servers that want to know their clients (mutual TLS); both or neither.
    server_name : str, optional
        The name to expect in the server's certificate, where it is not the target's.
    """

    root_certificates: str | Path | bytes | None = None
    client_key: str | Path | bytes | None = None
    client_certificate: str | Path | bytes | None = None
    server_name: str | None = None

    def credentials(self) -> grpc.ChannelCredentials:
        """As gRPC wants them.

        Raises
        ------
        InputError
            Where a file can't be read or is not PEM, or only one of the client's two is given.
        """
        if (self.client_key is None) != (self.client_certificate is None):
            raise InputError("TLS: client_key and client_certificate go together, and one is missing")
        return grpc.ssl_channel_credentials(
            root_certificates=_pem(self.root_certificates, "root certificates"),
            private_key=_pem(self.client_key, "client key"),
            certificate_chain=_pem(self.client_certificate, "client certificate"),
        )


def checked_target(target: str) -> str:
    """A target that names its port, and is no URL: gRPC would silently ask port 443 of one that does not."""
    if not isinstance(target, str) or ":" not in target or target.startswith(_URLS):
        raise InputError(f"the server must be HOST:PORT, e.g. localhost:8001, not {target!r}")
    return target


def credentials(tls: bool | TlsConfig) -> grpc.ChannelCredentials | None:
    """The channel's credentials, None for plain text."""
    if not tls:
        return None
    return (tls if isinstance(tls, TlsConfig) else TlsConfig()).credentials()


def call_metadata(
    token: str | None, tls: bool | TlsConfig, insecure_token: bool
) -> tuple[tuple[str, str], ...] | None:
    """What goes with every call: the token, where there is one.

    Raises
    ------
    InputError
        Where the token can't be one, or would travel in plain text and nobody said that it may. It is in
        no message.
    """
    if token is None:
        return None
    if not isinstance(token, str) or not _TOKEN.fullmatch(token):
        raise InputError("the token must be text of letters, digits and '-._~+/=' alone, without spaces")
    if not (tls or insecure_token):
        raise InputError(
            "the token would travel in plain text: encrypt (tls), or say that it may (insecure_token) where "
            "the server is on this machine or something else encrypts"
        )
    return (("authorization", f"Bearer {token}"),)


def options(
    load_balancing: LoadBalancing, tls: bool | TlsConfig, extra: Sequence[tuple[str, Any]] = ()
) -> list[tuple[str, Any]]:
    """Channel arguments; those in `extra` win."""
    chosen: dict[str, Any] = {
        "grpc.service_config": json.dumps(service_config(load_balancing)),
        "grpc.primary_user_agent": f"dropserve/{metadata.version('dropserve')}",
        # Requests are cut to size, and answers are as large as what was asked for.
        "grpc.max_send_message_length": -1,
        "grpc.max_receive_message_length": -1,
        # A call is retried only as long as gRPC keeps a copy of it; its default is 256 KiB.
        "grpc.per_rpc_retry_buffer_size": 2 * REQUEST_BYTES,
        # Notices a server that vanished without a word, while a call waits for it. Servers that were
        # not set up for it drop clients that ping more than twice in a silent five minutes.
        "grpc.keepalive_time_ms": 30_000,
        "grpc.keepalive_timeout_ms": 10_000,
        "grpc.http2.max_pings_without_data": 2,
        # A restarted server is found again soon.
        "grpc.initial_reconnect_backoff_ms": 100,
        "grpc.max_reconnect_backoff_ms": 5_000,
    }
    if isinstance(tls, TlsConfig) and tls.server_name:
        chosen["grpc.ssl_target_name_override"] = tls.server_name
    return list((chosen | dict(extra)).items())


def methods(channel: grpc.Channel | grpc.aio.Channel) -> dict[type, Callable[..., Any]]:
    """The method that answers each type of request."""
    stub: Any = PredictionServiceStub(channel)
    admin: Any = ModelServiceStub(channel)
    return {
        prediction_pb2.PredictRequest: stub.Predict,
        prediction_pb2.GetModelRequest: stub.GetModel,
        prediction_pb2.ListModelsRequest: stub.ListModels,
        administration_pb2.ListVersionsRequest: admin.ListVersions,
        administration_pb2.LoadModelRequest: admin.LoadModel,
        administration_pb2.UnloadModelRequest: admin.UnloadModel,
        administration_pb2.ReloadRepositoryRequest: admin.ReloadRepository,
        bytes: channel.unary_unary(foreign.HEALTH_CHECK),
    }


def service_config(load_balancing: LoadBalancing) -> dict[str, Any]:
    """Retries, of what a server has not looked at, and how servers behind one name are chosen.

    With round_robin, servers whose grpc.health.v1 says NOT_SERVING (draining ones) get no calls.
    """
    if load_balancing not in ("pick_first", "round_robin"):
        raise InputError(f"load_balancing must be 'pick_first' or 'round_robin', not {load_balancing!r}")
    config: dict[str, Any] = {
        "methodConfig": [
            {"name": [{"service": "dropserve.v1.PredictionService"}], "retryPolicy": _RETRY_POLICY}
        ],
        "loadBalancingConfig": [{load_balancing: {}}],
    }
    if load_balancing == "round_robin":
        config["healthCheckConfig"] = {"serviceName": ""}
    return config


def _pem(source: str | Path | bytes | None, what: str) -> bytes | None:
    if source is None:
        return None
    if isinstance(source, bytes):
        content, name = source, what
    else:
        content, name = _read(source, what), f"{what} {source}"
    if b"-----BEGIN " not in content:
        raise InputError(f"TLS: the {name} must be in PEM format, -----BEGIN ...")
    return content


def _read(path: str | Path, what: str) -> bytes:
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise InputError(f"TLS: can't read the {what} {path}: {error.strerror}") from error
