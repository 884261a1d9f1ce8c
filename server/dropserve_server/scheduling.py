"""How the kernel shares the processors among this process's threads; where it can be told (Linux)."""

from __future__ import annotations

import ctypes
import os
import platform
import struct
import sys
import threading

_SLICE_SECONDS = 100e-6  # the shortest that Linux accepts
_SYSTEM_CALLS = {"x86_64": 314, "aarch64": 274}  # sched_setattr(2): most C libraries have no function for it
_FORMAT = "=IIQiIQQQ"  # struct sched_attr, first version: size, policy, flags, nice, priority, runtime, ...


def be_prompt() -> None:
    """Have this thread, and those that it starts, run soon after they are woken.

    They ask for shorter time slices, which gives them no larger share of a processor. A thread with a longer
    slice is interrupted for them (Linux 6.12 and later); otherwise it runs on for some milliseconds, however
    nice it is, and a request passes through several threads.
    """
    _set(_niceness(), _SLICE_SECONDS)


def give_way(niceness: int) -> None:
    """Have this thread, and those that it starts, give way to others that are less nice."""
    if niceness and sys.platform == "linux":
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), niceness)
        _set(niceness, 0.0)  # the usual slice


def _niceness() -> int:
    return os.getpriority(os.PRIO_PROCESS, 0) if sys.platform == "linux" else 0


def _set(niceness: int, slice_seconds: float) -> None:
    """Ask for a slice, 0 for the usual one, for this thread. Old kernels and some sandboxes don't listen."""
    number = _SYSTEM_CALLS.get(platform.machine())
    if sys.platform != "linux" or number is None or os.sched_getscheduler(0) != os.SCHED_OTHER:
        return  # an operator has chosen another policy: it stays
    attributes = struct.pack(
        _FORMAT, struct.calcsize(_FORMAT), os.SCHED_OTHER, 0, niceness, 0, int(slice_seconds * 1e9), 0, 0
    )
    ctypes.CDLL(None).syscall(number, 0, attributes, 0)
