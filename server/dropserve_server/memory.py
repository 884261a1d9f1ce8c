"""What the C library does with memory that was freed: kept for the next request, or given back."""

from __future__ import annotations

import asyncio
import ctypes
import os
import threading

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # of glibc's <malloc.h>
_KEPT_BYTES = 64 * 2**20
_LARGE_BYTES = 32 * 2**20  # the most that glibc accepts


def keep_freed() -> None:
    """Have the C library keep what is freed, up to some size, for what comes next.

    Else glibc may take fresh pages from the system for each message of some 100 KiB and more, and give them
    back once it is answered, or refused: that costs many times what reading the message does. Anything
    larger than 32 MiB still comes from the system, and goes back to it. These are the bounds that glibc comes
    to by itself once a block of 32 MiB has been freed, and no other.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):  # another C library; Windows has no CDLL(None)
        return
    for environment, parameter, size in (
        ("MALLOC_TRIM_THRESHOLD_", _M_TRIM_THRESHOLD, _KEPT_BYTES),
        ("MALLOC_MMAP_THRESHOLD_", _M_MMAP_THRESHOLD, _LARGE_BYTES),
    ):
        if environment not in os.environ:  # an operator's choice stands
            mallopt(parameter, size)


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
