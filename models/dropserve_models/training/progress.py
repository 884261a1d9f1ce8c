"""One line on the terminal that says how training goes."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from statistics import fmean
from typing import Self, TextIO

from dropserve_models.training.fit import Epoch

_QUIET_SECONDS = 2.0
_REFRESH_SECONDS = 0.1
_CLEAR = "\r\x1b[K"


class StatusLine:
    """A line on a terminal that is written over, once the work has taken 2 seconds; elsewhere nothing.

    Use it as a context manager: the line is cleared at the end, however that comes.
    """

    def __init__(self, stream: TextIO, clock: Callable[[], float] = time.monotonic) -> None:
        self._stream = stream
        self._clock = clock
        self._shown = False
        self._terminal = stream.isatty()
        self._due = clock() + _QUIET_SECONDS

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._shown:
            self._write(_CLEAR)

    @property
    def due(self) -> bool:
        """Whether anything would be shown now: ten times a second at most."""
        return self._terminal and self._clock() >= self._due

    def show(self, text: str) -> None:
        """Show it in place of the last one, if it is due."""
        if self.due:
            self._due = self._clock() + _REFRESH_SECONDS
            self._shown = True
            self._write(_CLEAR + text)

    def _write(self, text: str) -> None:
        try:
            self._stream.write(text)
            self._stream.flush()
        except OSError:  # the terminal was closed: what it watched goes on
            self._terminal = False


class Progress(StatusLine):
    """Shows epochs, means over a fleet."""

    def __init__(
        self,
        stream: TextIO,
        epochs: int,
        metric: str,
        clock: Callable[[], float] = time.monotonic,
        title: str = "",
    ) -> None:
        super().__init__(stream, clock)
        self._epochs = epochs
        self._metric = metric
        self._title = title

    def __call__(self, epochs: Mapping[int, Epoch]) -> tuple[()]:
        """Show an epoch; nobody has to leave."""
        if self.due and epochs:
            self.show(self._line(list(epochs.values())))
        return ()

    def _line(self, epochs: list[Epoch]) -> str:
        line = f"epoch {epochs[0].number}/{self._epochs}  loss {fmean(epoch.loss for epoch in epochs):.4f}"
        losses = [epoch.validation_loss for epoch in epochs if epoch.validation_loss is not None]
        scores = [epoch.score for epoch in epochs if epoch.score is not None]
        if losses and scores:
            line += f"  validation {fmean(losses):.4f}  {self._metric} {fmean(scores):.4f}"
        return f"{self._title}{line}"
