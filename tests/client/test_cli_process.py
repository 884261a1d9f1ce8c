"""The command as a process of its own: its outputs, what stops it, and how light it starts."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from support.fake_server import FakeService, model, serving

DROPSERVE = Path(sys.executable).with_name("dropserve")


@pytest.fixture
def waiting() -> Iterator[subprocess.Popen[str]]:
    """The command as a process, waiting for a server that never answers."""
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        command = [str(DROPSERVE), "models", "--server", f"127.0.0.1:{silent.getsockname()[1]}"]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        silent.settimeout(30)
        connection, _ = silent.accept()
        yield process
        connection.close()
        process.kill()
        process.communicate(timeout=30)


def test_control_c_ends_a_call_quietly(waiting: subprocess.Popen[str]) -> None:
    waiting.send_signal(signal.SIGINT)
    out, err = waiting.communicate(timeout=30)
    assert (waiting.returncode, out, err) == (130, "", "")


def listing(
    service: FakeService,
    stdout: Any = None,
    shell: str = "",
    env: dict[str, str] | None = None,
) -> subprocess.CompletedProcess[bytes]:
    """``dropserve models``, of a service, as a process; `shell` is what a shell does to its outputs first."""
    with serving(service) as address:
        return subprocess.run(
            ["sh", "-c", f'exec "$@" {shell}', "sh", str(DROPSERVE), "models", "--server", address],
            stdout=stdout, stderr=subprocess.PIPE, env=env, timeout=30, check=False,
        )  # fmt: skip


def test_a_reader_that_leaves_is_no_failure() -> None:
    reader, writer = os.pipe()
    os.close(reader)
    try:
        process = listing(FakeService(), stdout=writer)
    finally:
        os.close(writer)
    assert (process.returncode, process.stderr) == (141, b"")


def test_output_that_cant_be_written_is_told_in_one_line() -> None:
    with open("/dev/full", "wb") as full:
        process = listing(FakeService(), stdout=full)
    said = b"dropserve models: can't write its output: No space left on device\n"
    assert (process.returncode, process.stderr) == (1, said)


def test_without_an_output_there_is_none() -> None:
    process = listing(FakeService(), shell=">&-")
    assert (process.returncode, process.stderr) == (0, b"")


def test_names_that_the_outputs_encoding_lacks_are_no_failure() -> None:
    service = FakeService(models=[model(output_names=["größe"])])
    process = listing(service, stdout=subprocess.PIPE, env={**os.environ, "PYTHONIOENCODING": "ascii"})
    assert (process.returncode, process.stderr) == (0, b"")
    assert b" gr??e " in process.stdout


def test_starting_is_light() -> None:
    probe = (
        "import sys; from dropserve_client.cli.main import main; main(['models', '--help']);"
        "print(*{'grpc', 'google.protobuf'} & set(sys.modules))"
    )
    command = [sys.executable, "-c", probe]
    answer = subprocess.run(command, capture_output=True, text=True, timeout=30, check=True)
    assert answer.stdout.splitlines()[-1] == ""
