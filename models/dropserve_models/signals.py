"""The signals that end a command that works for long: each is taken as Ctrl-C is."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

_NAMES = ("SIGINT", "SIGTERM", "SIGHUP")


class Stopped(KeyboardInterrupt):
    """A signal asked the command to end.

    Attributes
    ----------
    number : int
        Of the signal.
    """

    def __init__(self, number: int) -> None:
        super().__init__()
        self.number = number


@contextmanager
def stopping() -> Iterator[None]:
    """Inside, SIGINT, SIGTERM (service managers, batch systems, kill) and SIGHUP raise `Stopped`.

    A closed terminal may send SIGHUP twice: the second is no impatience, and ignored. A signal that is
    ignored stays so, as nohup wants it. Outside the main thread, which alone is told of signals, nothing
    changes.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    numbers = [getattr(signal, name) for name in _NAMES if hasattr(signal, name)]
    former = {number: signal.getsignal(number) for number in numbers}
    for number in numbers:
        if former[number] is not signal.SIG_IGN:
            signal.signal(number, _stop)
    try:
        yield
    finally:
        for number, handler in former.items():
            signal.signal(number, signal.SIG_DFL if handler is None else handler)


def exit_status(interrupt: KeyboardInterrupt) -> int:
    """Of a command that was interrupted: 128 and the signal's number, as shells count; 130 for Ctrl-C."""
    return 128 + (interrupt.number if isinstance(interrupt, Stopped) else signal.SIGINT)


def _stop(number: int, frame: FrameType | None) -> Any:
    if number == getattr(signal, "SIGHUP", None):
        signal.signal(number, signal.SIG_IGN)
    raise Stopped(number)
