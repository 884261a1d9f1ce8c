"""A process on a terminal of its own, and that terminal closed."""

from __future__ import annotations

import os
import pty
import subprocess
import sys

# By the process itself: what runs between fork and exec beside gRPC aborts now and then.
_TAKES_ITS_TERMINAL = "import fcntl, termios; fcntl.ioctl(0, termios.TIOCSCTTY, 0)\n"


def closed_amid(program: str, arguments: list[str], *, timeout: float) -> int:
    """Run Python code on a terminal that is closed when it has said "here", on a line; its exit status."""
    ours, theirs = pty.openpty()
    child = subprocess.Popen(
        [sys.executable, "-c", _TAKES_ITS_TERMINAL + program, *arguments],
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        start_new_session=True,
    )
    try:
        os.close(theirs)
        seen = b""
        while b"here\r\n" not in seen:
            try:
                seen += os.read(ours, 1000)
            except OSError as error:
                raise AssertionError(seen) from error  # it has ended
        os.close(ours)
        return child.wait(timeout)
    finally:
        child.kill()
        child.wait()
