"""Giving memory back to the system."""

from __future__ import annotations

import asyncio
import ctypes
import threading


def give_back_soon(loop: asyncio.AbstractEventLoop) -> None:
    """Have `give_back` done in a thread of its own. Any thread may ask, at any time: no one waits."""
    thread = threading.Thread(target=give_back, name="give-back", daemon=True)
    try:
        loop.call_soon_threadsafe(thread.start)
    except RuntimeError:
        pass  # the loop is closed: the process is about to end


def give_back() -> None:
    """Give back what was freed and the C library keeps for itself. Only glibc keeps much, and can be told to.

    It has several arenas, and keeps in each of them whatever lies below something still in use: after some
    exchanges of large models that is more than the models.
    """
    try:
        trim = ctypes.CDLL(None).malloc_trim
    except (AttributeError, OSError, TypeError):  # another C library; Windows has no CDLL(None)
        return
    trim(0)
