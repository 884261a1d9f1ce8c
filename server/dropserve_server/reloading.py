"""What is read from files, and read again when they change: certificates, tokens."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Generic, TypeVar

from dropserve_server.errors import ServerError
from dropserve_server.logs import LOGGER

T = TypeVar("T")

POLL_SECONDS = 1.0

log = logging.getLogger(LOGGER)


class Reloaded(Generic[T]):
    """A value that follows its files. One that can't be read leaves the old one in place.

    Parameters
    ----------
    what : str
        What the log calls it.
    files : sequence of Path
        Where it comes from.
    read : callable
        Reads it; raises a `ServerError` where the files are broken, or do not fit each other.

    Attributes
    ----------
    value : object
        As last read. May be read from any thread.

    Raises
    ------
    ServerError
        What `read` raises the first time.
    """

    def __init__(self, what: str, files: Sequence[Path], read: Callable[[], T]) -> None:
        self._what = what
        self._files = files
        self._read = read
        self._problem: str | None = None
        self._state = self._look()
        self.value: T = read()

    def refresh(self) -> None:
        """Read the files again if they have changed."""
        state = self._look()
        if state == self._state and self._problem is None:
            return
        self._state = state
        about = {"what": self._what, "files": [str(file) for file in self._files]}
        try:
            self.value = self._read()
        except ServerError as error:
            # Looked at again every time until it is good, and told once.
            if str(error) != self._problem:
                log.error("files not reloaded", extra=about | {"reason": str(error)})
            self._problem = str(error)
        else:
            self._problem = None
            log.info("files reloaded", extra=about)

    def _look(self) -> list[tuple[int, int, int] | None]:
        """What changes when a file is written, replaced, or its symbolic link turned elsewhere."""
        return [_identity(file) for file in self._files]


async def keep_up_to_date(values: Sequence[Reloaded[Any]]) -> None:
    """Look for changes, about once a second, until cancelled."""
    while values:
        await asyncio.sleep(POLL_SECONDS)
        for value in values:
            await asyncio.to_thread(value.refresh)  # files may be on a network


def _identity(file: Path) -> tuple[int, int, int] | None:
    try:
        status = file.stat()
    except OSError:
        return None
    return status.st_mtime_ns, status.st_size, status.st_ino
