"""What a supervisor and a worker tell each other: JSON objects, one a line, over a pair of sockets.

The first line is the supervisor's, ``{"number": 1, "settings": {...}, "orders": {...}}``. Then the worker
says how far it is, ``{"state": "loaded" | "listening"}``, what is serving, what can't be, which orders hold,
``{"health": {"": true, "MODEL": true, ...}, "failed_versions": {"MODEL": [3]}, "orders": {...}}``, or why it
can't start,
``{"failed": "..."}``, and the supervisor what to do, ``{"do": "join", "orders": {...}}`` or
``{"do": "drain" | "abort"}``.

An order goes from the worker that was given it, ``{"order": 1, "what": ["load_model", "NAME", ""]}``, to the
supervisor, from there to every worker, ``{"do": "follow", "order": 7, "what": [...]}``, which says what came
of it, ``{"order": 7, "outcome": {...}, "orders": {...}}``; then all that they said goes back to the first,
``{"do": "answer", "order": 1, "outcomes": [...]}``. ``["adopt", {...}]`` is an order of the supervisor's own.

The channel's end means that the other side has died.
"""

from __future__ import annotations

import asyncio
import json
import socket
from typing import Any, Self

_LONGEST_LINE = 2**24


class Channel:
    """One end."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    @classmethod
    async def over(cls, end: socket.socket) -> Self:
        """The channel over a connected Unix socket, which it then owns."""
        return cls(*await asyncio.open_unix_connection(sock=end, limit=_LONGEST_LINE))

    def send(self, **message: Any) -> None:
        """Tell the other side, unless it has died."""
        if not self._writer.is_closing():
            self._writer.write(json.dumps(message).encode() + b"\n")

    async def receive(self) -> dict[str, Any] | None:
        """What the other side says next; None once it has died."""
        try:
            line = await self._reader.readline()
        except ConnectionError:
            return None
        message: dict[str, Any] | None = json.loads(line) if line.endswith(b"\n") else None
        return message

    async def flush(self) -> None:
        """Wait until what was sent is on its way."""
        try:
            await self._writer.drain()
        except ConnectionError:
            pass

    def close(self) -> None:
        """Hang up."""
        self._writer.close()
