"""A process on a terminal of its own, and that terminal closed."""

from __future__ import annotations

import fcntl
import os
import pty
import subprocess
import sys
import termios


def closed_amid(program: str, arguments: list[str], *, timeout: float) -> int:
    """Run Python code on a terminal that is closed when it has said "here", on a line; its exit status."""
    ours, theirs = pty.openpty()

    def lead() -> None:
        os.setsid()
        fcntl.ioctl(theirs, termios.TIOCSCTTY, 0)

    child = subprocess.Popen(
        [sys.executable, "-c", program, *arguments],
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        preexec_fn=lead,
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
