"""``python -m dropserve_server.workers.worker``: one worker, told by its supervisor on stdin what to do."""

from __future__ import annotations

import asyncio
import logging
import os
import shutil
import socket
import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING

from prometheus_client import values

from dropserve_models.errors import ModelsError
from dropserve_server import logs
from dropserve_server.errors import ServerError
from dropserve_server.process import FAILURE, OK, leave, loop_factory, prepare
from dropserve_server.sources import read_settings
from dropserve_server.workers.channel import Channel
from dropserve_server.workers.descriptors import hold_listeners_high
from dropserve_server.workers.handle import METRICS_FOLDER

if TYPE_CHECKING:
    from dropserve_server.server import Ending, Server

log = logging.getLogger(logs.LOGGER)


class Membership:
    """What a server is told that is one of several workers, and tells the supervisor."""

    def __init__(self, channel: Channel) -> None:
        self._channel = channel
        self._joining = asyncio.Event()
        self._held: list[int] = []
        self._health: Mapping[str, bool] = {}

    async def loaded(self) -> None:
        """Say that the models are loaded, and wait until the port may be opened."""
        self._channel.send(state="loaded")
        await self._joining.wait()

    def listening(self) -> None:
        """Say that the port is open."""
        self._held = hold_listeners_high()
        self._channel.send(state="listening")

    def leaving(self) -> None:
        """Let the port be closed."""
        for descriptor in self._held:
            os.close(descriptor)
        self._held.clear()

    def report(self, health: Mapping[str, bool]) -> None:
        """Say what is serving, where that has changed."""
        if health != self._health:
            self._channel.send(health=health)
            self._health = health

    async def obey(self, server: Server) -> None:
        """Do what the supervisor says, until it dies; then stop."""
        while (message := await self._channel.receive()) is not None:
            match message.get("do"):
                case "join":
                    self._joining.set()
                case "drain":
                    server.stop()
                case "abort":
                    server.abort()
        log.error("the supervisor is gone")
        server.stop()


async def _life() -> Ending | int:
    channel = await Channel.over(socket.socket(fileno=sys.stdin.fileno()))
    first = await channel.receive()
    if first is None:
        return OK  # the supervisor has died already
    number = first["number"]
    try:
        settings = prepare(read_settings(first["settings"]))
        logs.configure(settings.log_format, settings.log_level, worker=number)
        logs.catch_uncaught()
        values.ValueClass = values.MultiProcessValue(lambda: number)  # type: ignore[no-untyped-call]

        from dropserve_server.server import Server  # gRPC, after what it reads when it is imported

        membership = Membership(channel)
        server = Server(settings, membership)
        obeying = asyncio.ensure_future(membership.obey(server))
        ending = await server.run()
        if obeying.done():
            shutil.rmtree(os.environ[METRICS_FOLDER], ignore_errors=True)
        obeying.cancel()
        return ending
    except (ServerError, ModelsError) as error:
        channel.send(failed=str(error))
        await channel.flush()
        return FAILURE


def main() -> int:
    """Serve until told to stop; the exit status."""
    with asyncio.Runner(loop_factory=loop_factory()) as runner:
        ending = runner.run(_life())
    return ending if isinstance(ending, int) else leave(ending)


if __name__ == "__main__":
    sys.exit(main())
