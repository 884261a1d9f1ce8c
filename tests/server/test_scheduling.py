"""What threads ask of the kernel; each scenario in a thread of its own, which takes it with it."""

from __future__ import annotations

import os
import re
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

import pytest

from dropserve_server.scheduling import be_prompt, give_way

T = TypeVar("T")

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="threads are scheduled one by one on Linux")


def in_a_thread(scenario: Callable[[], T]) -> T:
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(scenario).result()


def niceness() -> int:
    return os.getpriority(os.PRIO_PROCESS, threading.get_native_id())


def slice_nanoseconds() -> int:
    """The time slice of this thread, where the kernel tells."""
    try:
        told = Path(f"/proc/self/task/{threading.get_native_id()}/sched").read_text("ascii")
    except OSError:
        pytest.skip("this kernel tells nothing of its scheduling")
    found = re.search(r"se\.slice +: +(\d+)", told)
    major, minor = map(int, os.uname().release.split(".")[:2])
    if found is None or (major, minor) < (6, 12):
        pytest.skip("this kernel has no slices that can be asked for")
    return int(found[1])


def test_giving_way_is_for_one_thread_and_those_that_it_starts() -> None:
    before = niceness()

    def scenario() -> tuple[int, int]:
        give_way(before + 3)
        return niceness(), in_a_thread(niceness)

    assert in_a_thread(scenario) == (before + 3, before + 3)
    assert niceness() == before


def test_to_give_way_by_nothing_changes_nothing() -> None:
    def scenario() -> int:
        give_way(0)
        return niceness()

    assert in_a_thread(scenario) == niceness()


def test_a_prompt_thread_has_a_short_slice_and_is_as_nice_as_before() -> None:
    slice_nanoseconds()  # skips where there is none

    def scenario() -> tuple[int, int, int, int]:
        be_prompt()
        short, inherited = slice_nanoseconds(), in_a_thread(slice_nanoseconds)
        kept = niceness()
        give_way(niceness() + 3)
        return short, inherited, kept, slice_nanoseconds()

    short, inherited, kept, usual = in_a_thread(scenario)
    assert (short, inherited, kept) == (100_000, 100_000, niceness())
    assert usual > short
