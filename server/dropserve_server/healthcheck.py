"""``python -m dropserve_server.healthcheck``: exit status 0 where the server says SERVING, else 1.

For a container's HEALTHCHECK; needs nothing but gRPC. The server's own environment variables tell it the port
and the certificates, so that it need not be told again.
"""

from __future__ import annotations

import argparse
import os
import socket
import ssl
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

SERVING, NOT_SERVING = 0, 1


def main(arguments: list[str] | None = None) -> int:
    """Ask a server's grpc.health; print its answer, and return the exit status."""
    args = _parser(os.environ).parse_args(arguments)
    address = f"{args.host}:{args.port}"
    try:
        with _channel(address, args) as channel:
            request = health_pb2.HealthCheckRequest(service=args.service)
            stub = health_pb2_grpc.HealthStub(channel)
            status = stub.Check(request, timeout=args.timeout).status  # type: ignore[attr-defined]  # stub lacks it
    except grpc.RpcError as error:
        print(f"{address}: {error.code().name}: {error.details()}", file=sys.stderr)
        return NOT_SERVING
    except OSError as error:
        print(f"{address}: {error}", file=sys.stderr)
        return NOT_SERVING
    print(health_pb2.HealthCheckResponse.ServingStatus.Name(status))
    return SERVING if status == health_pb2.HealthCheckResponse.SERVING else NOT_SERVING


def _parser(environment: Mapping[str, str]) -> argparse.ArgumentParser:
    def given(name: str) -> str | None:
        return environment.get(f"DROPSERVE_{name}") or None

    parser = argparse.ArgumentParser(
        prog="python -m dropserve_server.healthcheck",
        description="Ask a server whether it is serving: exit status 0 where it is, else 1.",
        epilog="The defaults are those of the server that has the same DROPSERVE_ environment variables.",
    )
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=int(given("GRPC_PORT") or 8001))
    parser.add_argument("--service", default="", help="a model's name; empty: the whole server")
    parser.add_argument("--timeout", type=float, default=3.0, metavar="SECONDS")
    parser.add_argument(
        "--tls-ca",
        default=given("TLS_CERTIFICATE"),
        metavar="FILE",
        help="ask by TLS, and trust these certificates: authorities, or the server's own",
    )
    # With mutual TLS the server's certificate does as the client's too where the same authority signs both.
    mutual = given("TLS_CLIENT_CA") is not None
    for option, name in (("cert", "CERTIFICATE"), ("key", "KEY")):
        default = given(f"HEALTHCHECK_{name}") or (given(f"TLS_{name}") if mutual else None)
        parser.add_argument(
            f"--tls-{option}", default=default, metavar="FILE", help="for mutual TLS: what to show the server"
        )
    return parser


def _channel(address: str, args: argparse.Namespace) -> grpc.Channel:
    if args.tls_ca is None:
        return grpc.insecure_channel(address)
    credentials = grpc.ssl_channel_credentials(*map(_content, (args.tls_ca, args.tls_key, args.tls_cert)))
    # Asked on this machine, it is called otherwise than where the world asks it.
    name = _name_shown(args.host, args.port, args.tls_ca, args.timeout)
    return grpc.secure_channel(address, credentials, [("grpc.ssl_target_name_override", name)])


def _content(path: str | None) -> bytes | None:
    return Path(path).read_bytes() if path else None


def _name_shown(host: str, port: int, trusted: str, timeout: float) -> str:
    """A name that the server's certificate is for, which must be one that is trusted."""
    context = ssl.create_default_context(cafile=trusted)
    context.check_hostname = False
    context.verify_flags |= (
        ssl.VERIFY_X509_PARTIAL_CHAIN
    )  # the server's own certificate may be what is trusted
    context.set_alpn_protocols(["h2"])
    with (
        socket.create_connection((host, port), timeout) as connection,
        context.wrap_socket(connection) as secured,
    ):
        certificate: dict[str, Any] = secured.getpeercert() or {}
    for kind, name in certificate.get("subjectAltName", ()):
        if kind in ("DNS", "IP Address"):
            return str(name).replace("*", "any", 1)
    raise ssl.SSLError("the server's certificate names no host")


if __name__ == "__main__":
    sys.exit(main())
