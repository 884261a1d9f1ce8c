"""Every setting of ``dropserve serve``: its name, type, default and meaning.

A setting ``max_rows`` is the flag ``--max-rows``, the environment variable ``DROPSERVE_MAX_ROWS`` and the
key ``max_rows`` of the TOML file; `sources` reads them.
"""

from __future__ import annotations

import json
from ipaddress import ip_address
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    FilePath,
    NonNegativeInt,
    PlainSerializer,
    PositiveInt,
    model_validator,
)
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from dropserve_models.artifact import MAX_MODEL_BYTES
from dropserve_models.listing import is_model_name
from dropserve_models.prediction import DEFAULT_MEMORY_BYTES, DEFAULT_PASSES, MAX_PASSES
from dropserve_server.policy import ModelPolicy, VersionPolicy

ENVIRONMENT_PREFIX = "DROPSERVE_"

Port = Annotated[int, Field(ge=0, le=65535)]
Seconds = Annotated[float, Field(ge=0, le=86400)]
MessageBytes = Annotated[int, Field(ge=2**16, le=2**31 - 1)]


def _policy(value: object) -> object:
    return VersionPolicy.parse(str(value)) if isinstance(value, str | int) else value


def _json(value: object) -> object:
    try:
        return json.loads(value) if isinstance(value, str) else value
    except ValueError:
        raise ValueError('must be JSON, e.g. {"NAME": {"versions": "all", "default": 3}}') from None


def _model_name(name: str) -> str:
    if not is_model_name(name):
        raise ValueError("can't be a model's name")
    return name


Versions = Annotated[VersionPolicy, NoDecode, BeforeValidator(_policy), PlainSerializer(str)]


class ModelSettings(BaseModel):
    """What to serve of one model."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    versions: Versions | None = None
    """As the setting of that name, which holds where this is not given."""

    default: PositiveInt | None = None
    """The version that answers requests which name none; served in any case. Not given: the newest served."""


Models = Annotated[
    dict[Annotated[str, AfterValidator(_model_name)], ModelSettings], NoDecode, BeforeValidator(_json)
]


class Settings(BaseSettings):
    """The settings of a server. Frozen; checked when made."""

    model_config = SettingsConfigDict(
        env_prefix=ENVIRONMENT_PREFIX,
        env_ignore_empty=True,
        extra="forbid",
        frozen=True,
        use_attribute_docstrings=True,
    )

    repository: Path
    """Folder of the models: MODEL/VERSION/model.onnx."""

    host: str = "0.0.0.0"
    """Address the gRPC port binds to."""

    grpc_port: Port = 8001
    """Port of the gRPC services; 0 picks a free one, which the log names."""

    metrics_host: str = "127.0.0.1"
    """Address the metrics port binds to."""

    metrics_port: Port = 8002
    """Port of Prometheus' /metrics, over HTTP; 0 picks a free one, which the log names."""

    admin_host: str = "127.0.0.1"
    """Address the admin port binds to."""

    admin_port: Port | None = None
    """Port of the gRPC service for administrators; 0 picks a free one, which the log names. Unset: none."""

    workers: Annotated[int, Field(ge=1, le=256)] = 1
    """Processes that serve the gRPC port together; each holds every model in its own memory."""

    tls_certificate: FilePath | None = None
    """PEM file of the server's certificate chain. With tls_key: the gRPC ports speak TLS only."""

    tls_key: FilePath | None = None
    """PEM file of the certificate's private key."""

    tls_client_ca: FilePath | None = None
    """PEM file of the authorities that sign the clients' certificates: mutual TLS, no client without one."""

    token_file: FilePath | None = None
    """File of hashed bearer tokens (dropserve token makes them). Unset: whoever reaches the port may ask."""

    tokens_without_tls: bool = False
    """Take tokens without TLS from other hosts too: for a proxy or a mesh that encrypts on the way here."""

    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where models run. auto: on CUDA where it works, else on the CPU; cuda: refuse to start without it."""

    threads: PositiveInt | None = None
    """Threads that one computation may use. Unset: a worker's share of what affinity and CPU quota grant."""

    deterministic_workers: Annotated[int, Field(ge=1, le=256)] = 1
    """Deterministic batches computed at the same time. One already uses every thread for many rows."""

    monte_carlo_workers: Annotated[int, Field(ge=1, le=256)] = 2
    """Monte Carlo batches computed at the same time. They never hold deterministic ones up."""

    max_batch_rows: PositiveInt = 1024
    """Most rows of several requests that are computed together."""

    batch_delay: Annotated[float, Field(ge=0, le=1)] = 0.0
    """Seconds a request waits for others before a worker turns to them. 0: what came while it was busy."""

    versions: Versions = VersionPolicy()
    """Which versions of each model to serve: latest:N or N, the newest N that load; all; or only:1,3."""

    models: Models = {}
    """The same for single models, and their default versions: a TOML table [models.NAME], or JSON."""

    poll_seconds: Seconds = 2.0
    """How often to look for what has changed in the repository; 0: never."""

    max_artifact_bytes: Annotated[int, Field(ge=1, le=MAX_MODEL_BYTES)] = 512 * 2**20
    """Largest model that is loaded, in bytes on disk, all files together."""

    warm_up: bool = False
    """Prepare Monte Carlo for every model before it is served, not at its first such request."""

    default_passes: PositiveInt = DEFAULT_PASSES
    """Passes of a Monte Carlo request that names none."""

    max_passes: Annotated[int, Field(ge=1, le=MAX_PASSES)] = 10_000
    """Most passes a Monte Carlo request may ask for."""

    max_rows: PositiveInt = 16_384
    """Most rows a request may hold."""

    queue_rows: PositiveInt = 32_768
    """Most rows in flight, per mode; beyond it requests are refused at once with RESOURCE_EXHAUSTED."""

    queue_seconds: Annotated[float, Field(gt=0, le=86400)] = 2.0
    """Longest that a request may be expected to wait for its turn; beyond it, likewise refused at once."""

    max_message_bytes: MessageBytes = 64 * 2**20
    """Largest message, received or sent, in bytes."""

    max_header_bytes: Annotated[int, Field(ge=2**12, le=2**20)] = 16 * 2**10
    """Largest header of a call, its metadata, in bytes."""

    max_connections: PositiveInt = 10_000
    """Most gRPC connections; further ones are closed at once."""

    max_streams: Annotated[int, Field(ge=1, le=2**31 - 1)] = 1024
    """Calls of one connection in flight at the same time; further ones wait at the client."""

    connection_age_seconds: Annotated[float, Field(ge=1, le=10**6)] | None = None
    """Ask clients to connect anew after about so long, so that balancers can spread them. Unset: never."""

    connection_grace_seconds: Seconds = 30.0
    """How long calls in flight may take to finish on a connection that is too old; streams are cut then."""

    handshake_seconds: Annotated[float, Field(ge=0.1, le=3600)] = 20.0
    """How long a client may take to finish connecting, TLS included."""

    keepalive_seconds: Annotated[float, Field(ge=1, le=86400)] = 60.0
    """Silence of a connection after which its client is asked whether it is still there."""

    min_ping_seconds: Annotated[float, Field(ge=0, le=86400)] = 10.0
    """Least time between a client's own pings; one that goes on pinging more often is disconnected."""

    max_memory_bytes: Annotated[int, Field(ge=2**20)] = DEFAULT_MEMORY_BYTES
    """Memory that computing one Monte Carlo request may take beyond its input and answer, in bytes."""

    stream_concurrency: Annotated[int, Field(ge=1, le=1024)] = 32
    """Requests of one stream in flight at the same time; further ones wait in the connection."""

    drain_seconds: Seconds = 1.0
    """How long after SIGTERM requests are still taken while health says NOT_SERVING."""

    grace_seconds: Seconds = 30.0
    """How long requests in flight may then take to finish; after it they are cut off."""

    log_format: Literal["auto", "json", "console"] = "auto"
    """Form of the log on stderr. auto: console on a terminal, else json."""

    log_level: Literal["debug", "info", "warning", "error"] = "info"
    """Least severity that is logged. Requests that fail by their caller's doing are info."""

    log_requests: Annotated[float, Field(ge=0, le=1)] = 0.0
    """Share of the answered requests that is logged, from 0 (none) to 1 (each)."""

    log_failures_per_second: NonNegativeInt = 10
    """Most failed requests of one status code that are logged a second; how many more there were follows."""

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if (self.tls_certificate is None) != (self.tls_key is None):
            raise ValueError("tls_certificate and tls_key go together: give both or neither")
        if self.tls_client_ca is not None and self.tls_certificate is None:
            raise ValueError("tls_client_ca is for TLS: give tls_certificate and tls_key too")
        if self.token_file is not None and self.tls_certificate is None and not self.tokens_without_tls:
            hosts = {"host": self.host}
            if self.admin_port is not None:
                hosts["admin_host"] = self.admin_host
            for name, host in hosts.items():
                if not _is_loopback(host):
                    raise ValueError(
                        f"tokens would reach {host} in plain text: give tls_certificate and tls_key, or "
                        f"{name} 127.0.0.1, or tokens_without_tls where something else encrypts"
                    )
        if self.default_passes > self.max_passes:
            raise ValueError(
                f"default_passes is {self.default_passes}, more than max_passes, {self.max_passes}"
            )
        if self.max_rows > self.queue_rows:
            raise ValueError(f"max_rows is {self.max_rows}, more than queue_rows, {self.queue_rows}")
        return self

    def policies(self) -> dict[str, ModelPolicy]:
        """What to serve of single models."""
        return {
            name: ModelPolicy(model.versions or self.versions, model.default)
            for name, model in self.models.items()
        }


def _is_loopback(host: str) -> bool:
    try:
        return ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host == "localhost"
