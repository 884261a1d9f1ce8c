"""A connection that speaks just enough HTTP/2 (RFC 9113) to misbehave, and to see what the server does."""

from __future__ import annotations

import socket
import struct
from collections.abc import Iterator
from io import BufferedReader

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
SETTINGS, PING, GOAWAY = 4, 6, 7
ACK = 1
MAX_CONCURRENT_STREAMS, MAX_HEADER_LIST_SIZE = 3, 6
ENHANCE_YOUR_CALM = 11
TIMEOUT = 30.0


def frame(kind: int, payload: bytes = b"", flags: int = 0) -> bytes:
    """A frame of the connection, not of a stream."""
    return struct.pack(">I", len(payload))[1:] + bytes([kind, flags]) + bytes(4) + payload


def connect(port: int) -> socket.socket:
    """A connection to a port of this machine, on which nothing has been said."""
    return socket.create_connection(("127.0.0.1", port), TIMEOUT)


def open_connection(port: int) -> socket.socket:
    """One that has been opened as a client should."""
    connection = connect(port)
    connection.sendall(PREFACE + frame(SETTINGS))
    return connection


def frames(connection: socket.socket) -> Iterator[tuple[int, int, bytes]]:
    """Kind, flags and payload of what arrives, until the server hangs up. SETTINGS are acknowledged."""
    with connection.makefile("rb") as incoming:
        while len(head := _read(incoming, 9)) == 9:
            payload = _read(incoming, int.from_bytes(head[:3], "big"))
            if head[3] == SETTINGS and not head[4] & ACK:
                connection.sendall(frame(SETTINGS, flags=ACK))
            yield head[3], head[4], payload


def settings(payload: bytes) -> dict[int, int]:
    """What a SETTINGS frame says."""
    return dict(struct.iter_unpack(">HI", payload))


def error_code(goaway: bytes) -> int:
    """Why a GOAWAY frame says that the connection is over."""
    return int.from_bytes(goaway[4:8], "big")


def _read(incoming: BufferedReader, count: int) -> bytes:
    try:
        return incoming.read(count)
    except ConnectionResetError:
        return b""
