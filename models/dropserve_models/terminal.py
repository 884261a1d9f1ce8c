"""What a command says on its terminal, which may be closed while it works."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from typing import Self, TextIO

_QUIET_SECONDS = 2.0
_REFRESH_SECONDS = 0.1
_CLEAR = "\r\x1b[K"


def tell(line: str) -> None:
    """Write a line to stderr, if anybody can read it: neither work nor exit status hang on that."""
    if sys.stderr is None:  # it was closed before we started
        return
    try:
        print(line, file=sys.stderr)
    except OSError:
        pass


class StatusLine:
    """A line on a terminal that is written over, once the work has taken 2 seconds; elsewhere nothing.

    Use it as a context manager: the line is cleared at the end, however that comes.
    """

    def __init__(self, stream: TextIO | None, clock: Callable[[], float] = time.monotonic) -> None:
        self._stream = stream if stream is not None and stream.isatty() else None
        self._clock = clock
        self._shown = False
        self._due = clock() + _QUIET_SECONDS

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._shown:
            self._write(_CLEAR)

    @property
    def due(self) -> bool:
        """Whether anything would be shown now: ten times a second at most."""
        return self._stream is not None and self._clock() >= self._due

    def show(self, text: str) -> None:
        """Show it in place of the last one, if it is due."""
        if self.due:
            self._due = self._clock() + _REFRESH_SECONDS
            self._shown = True
            self._write(_CLEAR + text)

    def _write(self, text: str) -> None:
        if self._stream is None:
            return
        try:
            self._stream.write(text)
            self._stream.flush()
        except OSError:  # the terminal was closed: what it watched goes on
            self._stream = None
