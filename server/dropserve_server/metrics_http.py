"""The HTTP port for those who look after the server: GET /metrics for Prometheus, GET /healthz for probes."""

from __future__ import annotations

import contextlib
import json
import logging
import socket
import threading
from collections.abc import Mapping, Sequence
from socketserver import TCPServer, ThreadingMixIn
from typing import Any, ClassVar, Protocol
from urllib.parse import parse_qs, urlsplit

from prometheus_client import CollectorRegistry, MetricsHandler

from dropserve_server.errors import StartupError
from dropserve_server.logs import LOGGER

POLL_SECONDS = 0.1  # how soon the serving thread notices that it is to stop
MAX_CONNECTIONS = 100  # each has a thread

log = logging.getLogger(LOGGER)


class Health(Protocol):
    """Who knows what is serving. Any thread may ask."""

    def all(self) -> Mapping[str, bool]:
        """Whether each model, each MODEL/VERSION, and the whole server (the empty name) is serving."""

    def failed(self) -> Mapping[str, Sequence[int]]:
        """The versions that could not be loaded, by model."""


class _Handler(MetricsHandler):
    timeout = 10  # seconds for a client to send its request
    health: ClassVar[Health]

    def do_GET(self) -> None:
        url = urlsplit(self.path)
        if url.path == "/metrics":
            super().do_GET()
        elif url.path == "/healthz":
            self._send_health(parse_qs(url.query).get("model", [""])[-1])
        else:
            self.send_error(404, "the pages here are /metrics and /healthz")

    def _send_health(self, model: str) -> None:
        health = type(self).health
        serving = health.all().get(model)
        if serving is None:
            code, status = 404, "SERVICE_UNKNOWN"
        else:
            code, status = (200, "SERVING") if serving else (503, "NOT_SERVING")
        failed = {name: versions for name, versions in health.failed().items() if model in ("", name)}
        body = json.dumps({"status": status} | ({"failed": failed} if failed else {})).encode() + b"\n"
        self.send_response(code)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Cache-Control", "no-store")
        self.end_headers()
        self.wfile.write(body)


class _Server(ThreadingMixIn, TCPServer):
    # Not http.server.HTTPServer: that looks the host's name up in the DNS, which may take seconds.
    allow_reuse_address = True
    daemon_threads = True
    request_queue_size = 128

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self._open: dict[socket.socket, None] = {}
        self._lock = threading.Lock()

    def process_request(self, request: Any, client_address: Any) -> None:
        # Who is stuck must not keep others out: the oldest connection makes room for the newest.
        with self._lock:
            self._open[request] = None
            if len(self._open) > MAX_CONNECTIONS:
                oldest = next(iter(self._open))
                del self._open[oldest]
                with contextlib.suppress(OSError):  # it has just ended by itself
                    oldest.shutdown(socket.SHUT_RDWR)
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        with self._lock:
            self._open.pop(request, None)
        super().shutdown_request(request)

    def handle_error(self, request: Any, client_address: Any) -> None:
        # Otherwise printed between the log's lines; mostly of a caller that left before it had its answer.
        log.debug("http request failed", exc_info=True)


class MetricsServer:
    """Serves a registry and the state of health over HTTP, from a thread of its own.

    Raises
    ------
    StartupError
        The port can't be bound.
    """

    def __init__(self, host: str, port: int, registry: CollectorRegistry, health: Health) -> None:
        handler = type("Handler", (_Handler,), {"registry": registry, "health": health})
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
