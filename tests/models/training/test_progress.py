from __future__ import annotations

import io

import pytest

from dropserve_models.training.fit import Epoch
from dropserve_models.training.progress import Progress


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def epoch(number: int) -> Epoch:
    return Epoch(number, learning_rate=0.1, loss=0.5, validation_loss=0.25, score=0.875)


def shown(stream: io.StringIO, times: list[float]) -> str:
    clock = Clock()
    with Progress(stream, 200, "accuracy", clock) as progress:
        for number, clock.now in enumerate(times, 1):
            progress({0: epoch(number)})
    return stream.getvalue()


def test_nothing_is_shown_of_a_short_run() -> None:
    assert shown(Terminal(), [0.1, 1.0, 1.9]) == ""


def test_nothing_is_shown_off_a_terminal() -> None:
    assert shown(io.StringIO(), [1.0, 5.0, 10.0]) == ""


def test_a_long_run_rewrites_one_line_and_clears_it() -> None:
    clear = "\r\x1b[K"
    line = "epoch {}/200  loss 0.5000  validation 0.2500  accuracy 0.8750"
    found = shown(Terminal(), [1.0, 2.5, 2.55, 2.7])  # the third comes too soon after the second
    assert found == f"{clear}{line.format(2)}{clear}{line.format(4)}{clear}"


def test_the_line_is_cleared_after_an_error() -> None:
    stream, clock = Terminal(), Clock()

    def interrupted() -> None:
        with Progress(stream, 200, "r2", clock) as progress:
            clock.now = 3.0
            progress({0: epoch(1)})
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert stream.getvalue().endswith("\r\x1b[K")


def test_of_a_fleet_it_shows_means_and_what_is_being_done() -> None:
    stream, clock = Terminal(), Clock()
    with Progress(stream, 200, "accuracy", clock, title="cross-validation: ") as progress:
        clock.now = 3.0
        progress({3: Epoch(7, 0.1, loss=0.5), 8: Epoch(7, 0.1, loss=1.0)})
    assert "cross-validation: epoch 7/200  loss 0.7500\r" in stream.getvalue()


def test_a_terminal_that_is_closed_stops_nothing() -> None:
    class Closed(Terminal):
        def write(self, text: str) -> int:
            raise OSError(5, "Input/output error")

    assert shown(Closed(), [1.0, 5.0, 10.0]) == ""
