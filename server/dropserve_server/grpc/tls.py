"""The certificates of the gRPC ports: read, checked, and taken up while the server runs."""

from __future__ import annotations

import ssl
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

import grpc

from dropserve_server.errors import StartupError
from dropserve_server.reloading import Reloaded


@dataclass(frozen=True, slots=True)
class Certificates:
    """What a port shows and wants to see, in PEM form.

    Attributes
    ----------
    key, chain : bytes
        The server's private key and certificate chain.
    client_ca : bytes or None
        Who must have signed a client's certificate. None: clients need none.
    """

    key: bytes
    chain: bytes
    client_ca: bytes | None


def read_certificates(certificate: Path, key: Path, client_ca: Path | None) -> Certificates:
    """Read the files, and check that they fit each other: gRPC would only say that it can't listen.

    Raises
    ------
    StartupError
        A file can't be read, is not PEM, is encrypted, or the key is not the certificate's.
    """
    found = _read(certificate, key, client_ca)
    _check(certificate, key)
    if found.client_ca is not None:
        _check_client_ca(found.client_ca, client_ca)
    # The check reads the files too, and they may be exchanged one after the other.
    if _read(certificate, key, client_ca) != found:
        raise StartupError(f"{certificate} and {key} are being written")
    return found


def credentials(certificates: Reloaded[Certificates]) -> grpc.ServerCredentials:
    """Credentials of one port, which hand each new connection the newest certificates."""
    newest = certificates.value
    return grpc.dynamic_ssl_server_credentials(
        _configuration(newest),
        _fetcher(certificates, newest),  # type: ignore[arg-type]  # None is documented, its stub forgot
        require_client_authentication=newest.client_ca is not None,
    )


def _fetcher(
    certificates: Reloaded[Certificates], given: Certificates
) -> Callable[[], grpc.ServerCertificateConfiguration | None]:
    def fetch() -> grpc.ServerCertificateConfiguration | None:
        nonlocal given
        newest = certificates.value
        if newest == given:
            return None  # gRPC keeps what it has
        given = newest
        return _configuration(newest)

    return fetch


def _configuration(certificates: Certificates) -> grpc.ServerCertificateConfiguration:
    return grpc.ssl_server_certificate_configuration(
        [(certificates.key, certificates.chain)], root_certificates=certificates.client_ca
    )


def _read(certificate: Path, key: Path, client_ca: Path | None) -> Certificates:
    try:
        return Certificates(
            key.read_bytes(), certificate.read_bytes(), client_ca.read_bytes() if client_ca else None
        )
    except OSError as error:
        raise StartupError(f"can't read {error.filename}: {error.strerror}") from error


def _check(certificate: Path, key: Path) -> None:
    def encrypted() -> NoReturn:
        raise StartupError(f"the key {key} is encrypted; it must be in plain PEM form")

    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(certificate, key, password=encrypted)
    except ssl.SSLError as error:
        if error.reason == "KEY_VALUES_MISMATCH":
            raise StartupError(f"the key {key} is not that of the certificate {certificate}") from error
        raise StartupError(f"{certificate} and {key} are no certificate and its key in PEM form") from error
    except OSError as error:
        raise StartupError(f"can't read {certificate} and {key}: {error.strerror}") from error


def _check_client_ca(content: bytes, path: Path | None) -> None:
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_verify_locations(cadata=content.decode("ascii"))
    except (ssl.SSLError, ValueError) as error:
        raise StartupError(f"{path} holds no certificates in PEM form") from error
