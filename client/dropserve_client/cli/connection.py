"""The options that say which server to ask, and how."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dropserve_client import Client

TOKEN_VARIABLE = "DROPSERVE_TOKEN"


def add_connection_options(parser: argparse.ArgumentParser) -> None:
    """Add --server, --timeout, and the options for TLS and tokens."""
    group = parser.add_argument_group("server")
    group.add_argument(
        "--server", default="localhost:8001", metavar="HOST:PORT", help="whom to ask (%(default)s)"
    )
    group.add_argument(
        "--timeout", type=float, default=30.0, metavar="SECONDS", help="how long to wait (%(default)g)"
    )
    group.add_argument("--tls", action="store_true", help="encrypt; the other TLS options imply it")
    group.add_argument("--tls-ca", metavar="FILE", help="PEM file of the certificates to trust")
    group.add_argument("--tls-cert", metavar="FILE", help="PEM file of this client's certificate")
    group.add_argument("--tls-key", metavar="FILE", help="PEM file of its key")
    group.add_argument("--tls-server-name", metavar="NAME", help="name to expect in the server's certificate")
    group.add_argument(
        "--token-file",
        metavar="FILE",
        help=f"file of the bearer token to send (else {TOKEN_VARIABLE}, if set)",
    )
    group.add_argument(
        "--insecure-token", action="store_true", help="send the token without TLS, in plain text"
    )


def connect(arguments: argparse.Namespace) -> Client:
    """The client that these options describe."""
    from dropserve_client import Client

    return Client(arguments.server, **client_options(arguments))


def client_options(arguments: argparse.Namespace) -> dict[str, Any]:
    """What to make a client with, beside its target."""
    from dropserve_client import TlsConfig

    tls = TlsConfig(
        root_certificates=arguments.tls_ca,
        client_key=arguments.tls_key,
        client_certificate=arguments.tls_cert,
        server_name=arguments.tls_server_name,
    )
    return {
        "timeout": arguments.timeout,
        "tls": tls if tls != TlsConfig() else arguments.tls,
        "token": _token(arguments.token_file),
        "insecure_token": arguments.insecure_token,
    }


def _token(path: str | None) -> str | None:
    # Never an option itself: everybody on the machine can read the options of a process.
    from dropserve_client import InputError

    if path is None:
        return os.environ.get(TOKEN_VARIABLE) or None
    try:
        return Path(path).read_text(encoding="utf-8").strip()
    except OSError as error:
        raise InputError(f"can't read the token file {path}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise InputError(f"the token file {path} is not text") from error


def telling_errors(run: Callable[[argparse.Namespace], int]) -> Callable[[argparse.Namespace], int]:
    """`run`, with the errors of the SDK told in one line: exit status 2 for wrong requests, else 1."""

    def wrapped(arguments: argparse.Namespace) -> int:
        # Else gRPC adds lines of its own to what is told below. It reads this when it is imported.
        os.environ.setdefault("GRPC_VERBOSITY", "NONE")
        from dropserve_client import DropserveError, InputError, MonteCarloUnavailable, NotFoundError

        try:
            return run(arguments)
        except DropserveError as error:
            print(f"dropserve {arguments.command}: {error}", file=sys.stderr)
            return 2 if isinstance(error, InputError | MonteCarloUnavailable | NotFoundError) else 1

    return wrapped
