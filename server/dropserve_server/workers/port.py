"""A port that processes share: taken from everybody else, and listened on by nobody here."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from dropserve_server.errors import StartupError


@contextmanager
def reserved(name: str, host: str, port: int) -> Iterator[int]:
    """Hold `port` of every address of `host` for the time of the context; 0 picks a free one.

    `name` is what errors call it. Processes of the same user can listen on it with SO_REUSEPORT. The port
    itself, for them to listen on.

    Raises
    ------
    StartupError
        Someone has the port already, another server that shares it among its own workers included.
    """
    if not hasattr(socket, "SO_REUSEPORT"):
        raise StartupError("several workers need SO_REUSEPORT, which this system lacks; use --workers 1")
    with ExitStack() as held:
        try:
            for family, kind, protocol, _, address in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM):
                holder = held.enter_context(socket.socket(family, kind, protocol))
                _hold(holder, (address[0], port, *address[2:]))
                port = int(holder.getsockname()[1])
        except OSError as error:
            raise StartupError(f"can't listen on {name} port {host}:{port}: {error.strerror}") from error
        yield port


def _hold(holder: socket.socket, address: tuple[object, ...]) -> None:
    if holder.family == socket.AF_INET6:
        holder.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)  # 0.0.0.0 and :: are held one by one
    # Bound as if alone, though not held up by the last server's connections (TIME_WAIT), and shared only
    # then: with SO_REUSEPORT from the start, two supervisors could have the same port, each half its clients.
    holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    holder.bind(address)
    holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 0)
    holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
