"""Several calls under way at the same time, whose results come in the order of the calls."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, Final, TypeVar

from dropserve_client.wanted import Wanted

T = TypeVar("T")

MAX_IN_FLIGHT: Final = 1024

IN_FLIGHT: Final = 2
"""Calls under way where the rows of one prediction are split over several: one is computed while
another one travels."""


def in_order(calls: Iterator[Callable[[Wanted], T]], at_once: int, within: Wanted) -> Iterator[T]:
    """Results in the order of the calls, of which so many are made at the same time.

    Each call is told whether its answer is wanted, which ends with the iteration.
    """
    wanted = Wanted(within)
    pending: deque[Future[T]] = deque()
    pool = ThreadPoolExecutor(max_workers=at_once, thread_name_prefix="dropserve")
    try:
        for call in calls:
            pending.append(pool.submit(call, wanted))
            if len(pending) == at_once:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()
    finally:
        # Whoever interrupts this need not wait for what is under way: it asks no more than once.
        wanted.end()
        pool.shutdown(wait=False, cancel_futures=True)


async def awaited_in_order(calls: Iterator[Coroutine[Any, Any, T]], at_once: int) -> AsyncIterator[T]:
    """The same of coroutines."""
    pending: deque[asyncio.Task[T]] = deque()
    try:
        for call in calls:
            pending.append(asyncio.create_task(call))
            if len(pending) == at_once:
                yield await pending.popleft()
        while pending:
            yield await pending.popleft()
    finally:
        for task in pending:
            task.cancel()
        await asyncio.gather(*pending, return_exceptions=True)
