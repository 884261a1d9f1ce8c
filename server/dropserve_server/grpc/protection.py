"""What stands before the services of every gRPC port: TLS and tokens, as the settings want them."""

from __future__ import annotations

from functools import partial
from typing import Any

import grpc
import grpc.aio

from dropserve_server.grpc import tls
from dropserve_server.grpc.authentication import Authentication
from dropserve_server.grpc.request_log import RequestLog
from dropserve_server.metrics import Metrics
from dropserve_server.reloading import Reloaded, keep_up_to_date
from dropserve_server.settings import Settings
from dropserve_server.tokens import read_tokens


class Protection:
    """Credentials and interceptors, whose files may change while the server runs.

    Attributes
    ----------
    interceptors : tuple of ServerInterceptor
        To go before all others; none where no tokens are asked for.

    Raises
    ------
    SettingsError
        The token file is wrong.
    StartupError
        A certificate or key can't be used.
    """

    def __init__(self, settings: Settings, metrics: Metrics, request_log: RequestLog) -> None:
        self._files: list[Reloaded[Any]] = []
        self.interceptors: tuple[grpc.aio.ServerInterceptor, ...] = ()
        self._certificates = None
        certificate, key, client_ca = settings.tls_certificate, settings.tls_key, settings.tls_client_ca
        if certificate and key:
            paths = [path for path in (certificate, key, client_ca) if path]
            read = partial(tls.read_certificates, certificate, key, client_ca)
            self._certificates = Reloaded("certificates", paths, read)
            self._files.append(self._certificates)
        if settings.token_file:
            tokens = Reloaded("tokens", [settings.token_file], partial(read_tokens, settings.token_file))
            self.interceptors = (Authentication(tokens, metrics, request_log),)
            self._files.append(tokens)

    def credentials(self) -> grpc.ServerCredentials | None:
        """Credentials for one port; None for plain text."""
        return tls.credentials(self._certificates) if self._certificates else None

    async def keep_up_to_date(self) -> None:
        """Follow the files until cancelled."""
        await keep_up_to_date(self._files)
