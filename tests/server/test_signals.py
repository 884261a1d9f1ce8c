"""Signals before and while a server heeds them; each scenario in a process of its own."""

from __future__ import annotations

import signal
import subprocess
import sys

import pytest

SCENARIO = """
import asyncio, os, signal
from dropserve_server import signals

signal.pthread_sigmask(signal.SIG_SETMASK, ())  # not what the process that runs the tests has blocked

def hang_up():
    os.kill(os.getpid(), signal.SIGHUP)

async def life():
    heard = []
    signals.heed(lambda: heard.append("stop"), lambda: heard.append("drain"))
    await asyncio.sleep(0.05)
    print(*heard, flush=True)
    {then}
    await asyncio.sleep(0.05)
    print(*heard, flush=True)

{first}
asyncio.run(life())
"""


def heard(first: str, then: str = "pass") -> tuple[int, list[str]]:
    """The exit status of a process that does `first`, heeds signals, does `then`; what it heard meanwhile."""
    script = SCENARIO.format(first=first, then=then)
    process = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60)
    return process.returncode, process.stdout.splitlines()


def test_a_terminal_that_is_closed_early_is_heard_of_once_there_is_somebody_to_hear() -> None:
    assert heard("signals.hold_back(); hang_up(); hang_up()") == (0, ["drain", "drain"])


def test_without_being_held_back_it_would_end_the_process() -> None:
    assert heard("hang_up()") == (-signal.SIGHUP, [])


def test_later_ones_are_heard_as_they_come() -> None:
    assert heard("signals.hold_back()", "hang_up()") == (0, ["", "drain"])


def test_ignored_it_stays_ignored() -> None:
    ignore = "signal.signal(signal.SIGHUP, signal.SIG_IGN); signals.hold_back(); hang_up()"
    assert heard(ignore, "hang_up()") == (0, ["", ""])


@pytest.mark.parametrize("name", ["SIGTERM", "SIGINT"])
def test_others_end_a_start_that_hangs(name: str) -> None:
    status, lines = heard(f"signals.hold_back(); os.kill(os.getpid(), signal.{name})")
    assert (status, lines) == (-signal.Signals[name], [])
