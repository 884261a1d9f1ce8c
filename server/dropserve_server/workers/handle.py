"""A worker process as its supervisor sees it."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import sys
from collections.abc import Callable
from contextlib import ExitStack
from itertools import count
from pathlib import Path
from typing import Any, Literal

from dropserve_server.settings import ENVIRONMENT_PREFIX, Settings
from dropserve_server.workers.channel import Channel

METRICS_FOLDER = "PROMETHEUS_MULTIPROC_DIR"  # the name that prometheus_client has given it


class Handle:
    """A worker process: told what to do, and listened to until it ends.

    Attributes
    ----------
    number : int
        Which worker it is, from 1 on; the one that takes a dead one's place gets its number.
    pid : int
    failure : str or None
        Why it could not start, in its own words.
    listening : bool
        Whether it has opened the port.
    health : dict
        Whether it is serving, by the name of a model, and in all, by the empty one.
    failed_versions : dict
        Those that it could not load, by the name of a model.
    orders : dict
        The administrator's orders that it holds to since it joined the others, by the name of a model.
    joined : bool
        Whether it has been told to join the others: from then on it follows orders.
    """

    def __init__(self, number: int, process: asyncio.subprocess.Process, channel: Channel) -> None:
        self.number = number
        self.pid = process.pid
        self.failure: str | None = None
        self.listening = False
        self.health: dict[str, bool] = {}
        self.failed_versions: dict[str, list[int]] = {}
        self.orders: dict[str, Any] = {}
        self.joined = False
        self._process = process
        self._channel = channel
        self._loaded: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        self._numbers = count()
        self._followed: dict[int, asyncio.Future[dict[str, Any] | None]] = {}
        self._ended = False

    @classmethod
    async def start(
        cls, number: int, settings: Settings, metrics_folder: Path, orders: dict[str, Any]
    ) -> Handle:
        """Start worker `number` in a fresh interpreter, with the orders that hold."""
        ours, theirs = socket.socketpair()
        with theirs, ExitStack() as failing:
            failing.callback(ours.close)
            process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-P",  # the current folder is nobody's library
                "-m",
                "dropserve_server.workers.worker",
                stdin=theirs.fileno(),
                env=_environment() | {METRICS_FOLDER: str(metrics_folder)},
                # Ctrl-C in a terminal is for the supervisor, which tells its workers what to do.
                start_new_session=True,
            )
            failing.pop_all()
        channel = await Channel.over(ours)
        channel.send(number=number, settings=settings.model_dump(mode="json"), orders=orders)
        return cls(number, process, channel)

    def tell(self, what: Literal["drain", "abort"]) -> None:
        """Say what to do: finish and end; end."""
        self._channel.send(do=what)

    def join(self, orders: dict[str, Any]) -> None:
        """Have it adopt the orders that hold by now, and open the port."""
        self.orders, self.joined = orders, True
        self._channel.send(do="join", orders=orders)

    async def follow(self, what: list[Any]) -> dict[str, Any] | None:
        """Have it follow an order; what came of that, or None where it has ended before."""
        if self._ended:
            return None
        number = next(self._numbers)
        followed: asyncio.Future[dict[str, Any] | None] = asyncio.get_running_loop().create_future()
        self._followed[number] = followed
        self._channel.send(do="follow", order=number, what=what)
        return await followed

    def answer(self, order: int, outcomes: list[dict[str, Any]]) -> None:
        """Say what became of an order that it has passed on, worker by worker."""
        self._channel.send(do="answer", order=order, outcomes=outcomes)

    def kill(self) -> None:
        """End it, whatever it does."""
        if self._process.returncode is None:
            self._process.kill()

    async def loaded(self) -> bool:
        """Wait until it has loaded its models; False where it has ended before."""
        return await asyncio.shield(self._loaded)

    async def watch(
        self, on_listening: Callable[[], None], on_order: Callable[[Handle, int, list[Any]], None]
    ) -> int:
        """Listen to it until it ends; its exit status, a signal's number being negative."""
        try:
            while (message := await self._channel.receive()) is not None:
                state = message.get("state")
                self.failure = message.get("failed", self.failure)
                self.health = message.get("health", self.health)
                self.failed_versions = message.get("failed_versions", self.failed_versions)
                self.orders = message.get("orders", self.orders)
                if state == "loaded":
                    self._loaded.set_result(True)
                elif state == "listening":
                    self.listening = True
                    on_listening()
                elif "what" in message:
                    on_order(self, message["order"], message["what"])
                elif "outcome" in message:
                    self._followed.pop(message["order"]).set_result(message["outcome"])
            return await self._process.wait()
        finally:
            self.listening = self.joined = False
            self._ended = True  # nobody answers from here on
            while self._followed:
                self._followed.popitem()[1].set_result(None)
            if not self._loaded.done():
                self._loaded.set_result(False)
            self._channel.close()


def _environment() -> dict[str, str]:
    # What the settings file says is among the settings; it may have changed since.
    return {
        name: value for name, value in os.environ.items() if name.upper() != f"{ENVIRONMENT_PREFIX}CONFIG"
    }


def how_it_ended(status: int) -> str:
    """An exit status in words."""
    if status >= 0:
        return f"exit status {status}"
    try:
        return f"killed by {signal.Signals(-status).name}"
    except ValueError:  # a real-time signal
        return f"killed by signal {-status}"
