"""The `dropserve` command, run by the examples as a user would run it."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

DROPSERVE = Path(sys.executable).with_name("dropserve")
START_SECONDS = 60.0
STOP_SECONDS = 30.0


class CommandError(Exception):
    """A dropserve command failed; the message is its own last line."""


@dataclass(frozen=True)
class LocalServer:
    """Where a started server answers: gRPC at `address`, Prometheus' text at `metrics_url`."""

    address: str
    metrics_url: str


def dropserve(*arguments: str | Path) -> None:
    """Run a subcommand to its end; what it tells on the way goes to this process's stderr.

    Raises
    ------
    CommandError
        It failed.
    """
    status = subprocess.run([DROPSERVE, *arguments], stdin=subprocess.DEVNULL, check=False).returncode
    if status != 0:
        raise CommandError(f"dropserve {arguments[0]} failed with exit status {status}")


@contextmanager
def serving(repository: Path, log: Path) -> Iterator[LocalServer]:
    """Start a server on free ports, wait until it serves, and stop it in the end.

    Raises
    ------
    CommandError
        It did not start, or did not stop cleanly.
    """
    ports = ["--host", "127.0.0.1", "--grpc-port", "0", "--metrics-port", "0"]
    command: list[str | Path] = [
        DROPSERVE,
        "serve",
        "--repository",
        repository,
        *ports,
        "--warm-up",
        "--log-format",
        "json",
    ]
    with (
        log.open("w") as stderr,
        subprocess.Popen(command, stdin=subprocess.DEVNULL, stderr=stderr) as process,
    ):
        try:
            yield _wait(process, log)
        finally:
            process.terminate()
            try:
                status = process.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()
                raise CommandError(
                    f"the server did not stop within {STOP_SECONDS:.0f} s; see {log}"
                ) from None
    if status != 0:
        raise CommandError(f"the server ended with exit status {status}; see {log}")


def _wait(process: subprocess.Popen[bytes], log: Path) -> LocalServer:
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        stopped = process.poll() is not None
        lines = log.read_text("utf-8").splitlines()
        events = {event["event"]: event for event in map(_event, lines)}
        if "serving" in events:
            port, metrics_port = (events["listening"][name] for name in ("grpc_port", "metrics_port"))
            return LocalServer(f"127.0.0.1:{port}", f"http://127.0.0.1:{metrics_port}/metrics")
        if stopped:
            raise CommandError(f"the server did not start: {lines[-1] if lines else 'it said nothing'}")
        time.sleep(0.05)
    raise CommandError(f"the server did not start within {START_SECONDS:.0f} s; see {log}")


def _event(line: str) -> dict[str, str]:
    try:
        event: dict[str, str] = json.loads(line)
    except ValueError:  # the line is still being written, or is a message from before the log
        return {"event": ""}
    return event
