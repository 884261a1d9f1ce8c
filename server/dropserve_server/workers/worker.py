"""``python -m dropserve_server.workers.worker``: one worker, told by its supervisor on stdin what to do."""

from __future__ import annotations

import asyncio
import logging
import os
import shutil
import socket
import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from prometheus_client import values

from dropserve_models.errors import ModelsError
from dropserve_server import logs
from dropserve_server.administration import Administration
from dropserve_server.errors import ServerError
from dropserve_server.process import FAILURE, OK, leave, loop_factory, prepare
from dropserve_server.shelf import Orders
from dropserve_server.sources import read_settings
from dropserve_server.workers.channel import Channel
from dropserve_server.workers.descriptors import hold_listeners_high
from dropserve_server.workers.handle import METRICS_FOLDER
from dropserve_server.workers.orders import Everybody, follow, read_orders, write_orders

if TYPE_CHECKING:
    from dropserve_server.server import Ending, Server

log = logging.getLogger(logs.LOGGER)


class Membership:
    """What a server is told that is one of several workers, and tells the supervisor."""

    def __init__(self, channel: Channel, orders: Mapping[str, Orders]) -> None:
        self.orders = orders
        self._channel = channel
        self._joining = asyncio.Event()
        self._held: dict[int, int] = {}
        self._told: dict[str, Any] = {}
        self._here: Administration | None = None
        self._everybody = Everybody(lambda number, what: channel.send(order=number, what=what))
        self._ordered: asyncio.Queue[dict[str, Any]] = asyncio.Queue()

    def administered(self, here: Administration) -> Everybody:
        """Note who follows orders here; who has them followed by every worker."""
        self._here = here
        return self._everybody

    async def loaded(self) -> None:
        """Say that the models are loaded, and wait until the port may be opened."""
        self._channel.send(state="loaded")
        await self._joining.wait()

    def listening(self) -> None:
        """Say that the port is open."""
        self._held = hold_listeners_high()
        self._channel.send(state="listening")

    def leaving(self, port: int) -> None:
        """Let a port be closed."""
        for descriptor in [descriptor for descriptor, of in self._held.items() if of == port]:
            os.close(descriptor)
            del self._held[descriptor]

    def report(self, health: Mapping[str, bool], failed: Mapping[str, list[int]]) -> None:
        """Say what is serving and what could not be loaded, where that has changed."""
        news = {"health": health, "failed_versions": failed} | self._holding_to()
        if news != self._told:
            self._channel.send(**news)
            self._told = news

    async def obey(self, server: Server) -> None:
        """Do what the supervisor says, until it dies; then stop."""
        following = asyncio.ensure_future(self._follow())
        try:
            while (message := await self._channel.receive()) is not None:
                match message["do"]:
                    case "follow" if message["what"] == ["list_versions"]:
                        await self._follow_one(message)  # at once: to look is no order
                    case "join" | "follow":
                        self._ordered.put_nowait(message)
                    case "answer":
                        self._everybody.answer(message["order"], message["outcomes"])
                    case "drain":
                        server.stop()
                    case "abort":
                        server.abort()
        finally:
            following.cancel()
        log.error("the supervisor is gone")
        server.stop()

    async def _follow(self) -> None:
        """Follow orders, one after the other."""
        while True:
            message = await self._ordered.get()
            if message["do"] == "follow":
                await self._follow_one(message)
            else:
                await follow(self._administration(), ["adopt", message["orders"]])
                self._joining.set()

    async def _follow_one(self, message: dict[str, Any]) -> None:
        outcome = await follow(self._administration(), message["what"])
        self._channel.send(order=message["order"], outcome=outcome, **self._holding_to())

    def _administration(self) -> Administration:
        assert self._here is not None  # the supervisor orders nothing before the server is there
        return self._here

    def _holding_to(self) -> dict[str, Any]:
        # Before it has joined they are those it was started with, which others may have replaced since.
        joined = self._here is not None and self._joining.is_set()
        return {"orders": write_orders(self._administration().orders)} if joined else {}


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

        membership = Membership(channel, read_orders(first["orders"]))
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
