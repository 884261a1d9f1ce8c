"""One line on the terminal that says how training goes."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TextIO

from dropserve_models.training.fit import Epoch

_QUIET_SECONDS = 2.0
_REFRESH_SECONDS = 0.1
_CLEAR = "\r\x1b[K"


class Progress:
    """Shows epochs on a terminal once training has taken 2 seconds; elsewhere nothing.

    Use it as a context manager: the line is cleared at the end, however that comes.
    """

    def __init__(
        self, stream: TextIO, epochs: int, metric: str, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._stream = stream
        self._epochs = epochs
        self._metric = metric
        self._clock = clock
        self._shown = False
        self._terminal = stream.isatty()
        self._due = clock() + _QUIET_SECONDS

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, *_: object) -> None:
        if self._shown:
            self._stream.write(_CLEAR)
            self._stream.flush()

    def __call__(self, epoch: Epoch) -> None:
        """Show an epoch, ten times a second at most."""
        now = self._clock()
        if not self._terminal or now < self._due:
            return
        self._due = now + _REFRESH_SECONDS
        self._shown = True
        self._stream.write(
            f"{_CLEAR}epoch {epoch.number}/{self._epochs}  loss {epoch.loss:.4f}  "
            f"validation {epoch.validation_loss:.4f}  {self._metric} {epoch.score:.4f}"
        )
        self._stream.flush()
