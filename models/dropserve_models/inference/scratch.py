"""Memory for large intermediate values, used again and again.

A C library's heap is not the place for them: megabytes that come and go between small objects that stay
leave holes which the next request's values do not fit. So its size grows for hours, to a multiple of what is
in use. Blocks of their own have no neighbours. Fresh ones from the system for every value would cost more
than computing it does: every page is cleared when it is first touched. So what was freed is lent again.
"""

from __future__ import annotations

import mmap
import threading
import weakref
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from functools import cache, partial
from math import prod
from typing import TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Empty: TypeAlias = Callable[..., Tensor]
"""Makes an uninitialised float32 tensor of a shape, like `torch.empty`."""

IDLE_BYTES = 64 * 2**20
"""What is kept, at most, while nobody uses it."""
SMALL_BYTES = 64 * 2**10
"""Smaller values are the C library's: they fit the holes that others leave."""
_WASTE = 4
"""A block may be larger than the value by this part of it, and a small value's worth."""


class Scratch:
    """Blocks of memory that values are made in. Thread-safe.

    A value's block can be lent again once nothing refers to the value or to a view of it.

    Parameters
    ----------
    idle_bytes : int
        What is kept, at most, while nobody uses it; what has waited longest goes first.
    """

    def __init__(self, idle_bytes: int = IDLE_BYTES) -> None:
        self._limit = idle_bytes
        self._lock = threading.Lock()
        self._idle: list[mmap.mmap] = []  # what has waited longest comes first
        # Values end anywhere, in a garbage collection while this thread holds the lock too.
        self._returned: deque[mmap.mmap] = deque()
        self._lent: dict[int, weakref.ref[NDArray[np.float32]]] = {}  # by the identity of the block

    def empty(self, *shape: int) -> Tensor:
        """An uninitialised float32 tensor, contiguous, on a page of its own unless it is small."""
        size = 4 * prod(shape)
        if size < SMALL_BYTES:
            return torch.empty(shape)
        block = self._take(size)
        values = np.ndarray(shape, np.float32, block)
        # torch refers to the array for as long as there is a tensor that shows a part of it.
        self._lent[id(block)] = weakref.ref(values, partial(self._give_back, block))
        return torch.from_numpy(values)

    @property
    def idle_bytes(self) -> int:
        """What is kept while nobody uses it."""
        with self._lock:
            self._settle()
            return sum(map(len, self._idle))

    def clear(self) -> None:
        """Give the system what nobody uses. Takes no lock, so that a finalizer may call it."""
        self._returned.clear()
        self._idle = []

    def _give_back(self, block: mmap.mmap, _: weakref.ref[NDArray[np.float32]]) -> None:
        del self._lent[id(block)]
        self._returned.append(block)

    def _take(self, size: int) -> mmap.mmap:
        most = size + size // _WASTE + SMALL_BYTES
        with self._lock:
            self._settle()
            idle = self._idle
            for place in range(len(idle) - 1, -1, -1):
                if size <= len(idle[place]) <= most:
                    return idle.pop(place)
        return mmap.mmap(-1, -(-size // SMALL_BYTES) * SMALL_BYTES, **_PRIVATE)

    def _settle(self) -> None:
        """Sort in what has been given back."""
        idle = self._idle
        with suppress(IndexError):  # `clear` may empty it at any time
            while self._returned:
                idle.append(self._returned.popleft())
        excess = sum(map(len, idle)) - self._limit
        while excess > 0:
            excess -= len(idle.pop(0))


def alike(x: Tensor, empty: Empty) -> Tensor:
    """An empty value [units, passes, rows] whose memory is laid out like that of `x`."""
    units, passes, rows = x.shape
    if x.stride(0) < x.stride(1):
        return empty(passes, units, rows).transpose(0, 1)
    return empty(units, passes, rows)


def twice(x: Tensor, empty: Empty) -> Tensor:
    """Two such values, [2, units, passes, rows]."""
    units, passes, rows = x.shape
    if x.stride(0) < x.stride(1):
        return empty(2, passes, units, rows).transpose(1, 2)
    return empty(2, units, passes, rows)


# Shared pages, the default, would count as files in memory. Windows has no such choice.
_PRIVATE = {"flags": mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS} if hasattr(mmap, "MAP_PRIVATE") else {}


@cache
def shared_scratch() -> Scratch:
    """The scratch of this process's engines: models that wait have no memory of their own to wait with."""
    return Scratch()
