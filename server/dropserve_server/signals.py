"""The signals that end a server."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable


def hold_back() -> None:
    """Have a SIGHUP wait until `heed`: it would end the process, however little of its start is left."""
    # Not for SIGTERM and SIGINT: whoever waits for a start that hangs must be able to end it.
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGHUP})


def heed(stop: Callable[[], None], drain: Callable[[], None]) -> None:
    """Call `stop` at each SIGTERM and SIGINT, and `drain` at SIGHUP, in the running event loop.

    A closed terminal sends SIGHUP, perhaps twice: the second is no impatience. Where it is ignored it stays
    so, as nohup wants it.
    """
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop)
    if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:
        loop.add_signal_handler(signal.SIGHUP, drain)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGHUP})
