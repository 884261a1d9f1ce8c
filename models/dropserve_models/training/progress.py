"""One line on the terminal that says how training goes."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from statistics import fmean
from typing import TextIO

from dropserve_models.terminal import StatusLine
from dropserve_models.training.fit import Epoch


class Progress(StatusLine):
    """Shows epochs, means over a fleet."""

    def __init__(
        self,
        stream: TextIO | None,
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
