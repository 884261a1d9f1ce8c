"""Threads for work that may block: files, and what is read from them."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Self, TypeVar

T = TypeVar("T")


class Threads:
    """Some threads, for the time of a context; leaving it waits for none of them.

    Parameters
    ----------
    at_work : set of int
        Holds the threads that are at work, also after the context; added to and removed from by the threads.
    """

    def __init__(self, count: int, at_work: set[int]) -> None:
        self._pool = ThreadPoolExecutor(count, thread_name_prefix="load")
        self._at_work = at_work

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._pool.shutdown(wait=False, cancel_futures=True)

    async def do(self, work: Callable[[], T]) -> T:
        """Do `work` in one of the threads."""
        return await asyncio.get_running_loop().run_in_executor(self._pool, self._do, work)

    def _do(self, work: Callable[[], T]) -> T:
        thread = threading.get_ident()
        self._at_work.add(thread)
        try:
            return work()
        finally:
            self._at_work.discard(thread)
