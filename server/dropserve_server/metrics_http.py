"""The HTTP port that Prometheus scrapes: GET /metrics."""

from __future__ import annotations

import socket
import threading
from socketserver import TCPServer, ThreadingMixIn

from prometheus_client import CollectorRegistry, MetricsHandler

from dropserve_server.errors import StartupError

POLL_SECONDS = 0.1  # how soon the serving thread notices that it is to stop


class _Handler(MetricsHandler):
    timeout = 10  # seconds for a client to send its request

    def do_GET(self) -> None:
        if self.path.partition("?")[0] == "/metrics":
            super().do_GET()
        else:
            self.send_error(404, "the one page here is /metrics")


class _Server(ThreadingMixIn, TCPServer):
    # Not http.server.HTTPServer: that looks the host's name up in the DNS, which may take seconds.
    allow_reuse_address = True
    daemon_threads = True


class MetricsServer:
    """Serves a registry over HTTP from a thread of its own.

    Raises
    ------
    StartupError
        The port can't be bound.
    """

    def __init__(self, host: str, port: int, registry: CollectorRegistry) -> None:
        handler = type("Handler", (_Handler,), {"registry": registry})
        try:
            family, *_, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
            server = type("Server", (_Server,), {"address_family": family})
            self._server = server(address[:2], handler)
        except OSError as error:
            raise StartupError(f"can't listen on metrics port {host}:{port}: {error.strerror}") from error
        self.port: int = self._server.server_address[1]
        self._thread = threading.Thread(
            target=self._server.serve_forever, args=(POLL_SECONDS,), name="metrics", daemon=True
        )
        self._thread.start()

    def close(self) -> None:
        """Stop serving and free the port."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()
