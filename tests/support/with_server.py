"""Run a command beside a server of the example repository: ``python with_server.py COMMAND...``.

For what can't live in this environment: clients whose dependencies are at odds with the server's. The command
finds the address in the environment; its exit status is this one's.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

from support import example_repository
from support.server_process import server_process

ADDRESS_VARIABLE = "EXAMPLE_SERVER"
_SECONDS = 300.0


def main(command: list[str]) -> int:
    """Run the command, and return its exit status."""
    with TemporaryDirectory() as folder:
        repository = example_repository.fill(Path(folder))
        with server_process(repository, "--versions", "2") as server:
            environment = os.environ | {ADDRESS_VARIABLE: server.address}
            return subprocess.run(command, env=environment, check=False, timeout=_SECONDS).returncode


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
