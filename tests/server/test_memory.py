"""What the C library does with freed memory, counted in a process of its own."""

from __future__ import annotations

import os
import platform
import subprocess
import sys

import pytest

# Three messages' worth at a time, as reading one takes; prints how many pages came from the system.
MESSAGES = """
import resource, sys
from dropserve_server.memory import keep_freed
if sys.argv[1] == "kept":
    keep_freed()
def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt
def read():
    held = [bytearray(300_000) for _ in range(3)]
    del held
read()
before = faults()
for _ in range(50):
    read()
print(faults() - before)
"""


def faults(how: str, **environment: str) -> int:
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("MALLOC_", "GLIBC_"))}
    command = [sys.executable, "-c", MESSAGES, how]
    output = subprocess.run(command, env=clean | environment, capture_output=True, text=True, check=True)
    return int(output.stdout)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="other C libraries have no mallopt")
def test_what_messages_took_is_kept_for_the_next_ones_unless_the_operator_wants_otherwise() -> None:
    assert faults("kept") < 500
    assert faults("kept", MALLOC_MMAP_THRESHOLD_="100000") > 5000
