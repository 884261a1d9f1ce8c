"""A worker process as its supervisor sees it."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import sys
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Literal

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
    """

    def __init__(self, number: int, process: asyncio.subprocess.Process, channel: Channel) -> None:
        self.number = number
        self.pid = process.pid
        self.failure: str | None = None
        self.listening = False
        self.health: dict[str, bool] = {}
        self._process = process
        self._channel = channel
        self._loaded: asyncio.Future[bool] = asyncio.get_running_loop().create_future()

    @classmethod
    async def start(cls, number: int, settings: Settings, metrics_folder: Path) -> Handle:
        """Start worker `number` in a fresh interpreter."""
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
        channel.send(number=number, settings=settings.model_dump(mode="json"))
        return cls(number, process, channel)

    def tell(self, what: Literal["join", "drain", "abort"]) -> None:
        """Say what to do: open the port; finish and end; end."""
        self._channel.send(do=what)

    def kill(self) -> None:
        """End it, whatever it does."""
        if self._process.returncode is None:
            self._process.kill()

    async def loaded(self) -> bool:
        """Wait until it has loaded its models; False where it has ended before."""
        return await asyncio.shield(self._loaded)

    async def watch(self, on_listening: Callable[[], None]) -> int:
        """Listen to it until it ends; its exit status, a signal's number being negative."""
        try:
            while (message := await self._channel.receive()) is not None:
                state = message.get("state")
                self.failure = message.get("failed", self.failure)
                self.health = message.get("health", self.health)
                if state == "loaded":
                    self._loaded.set_result(True)
                elif state == "listening":
                    self.listening = True
                    on_listening()
            return await self._process.wait()
        finally:
            self.listening = False
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
