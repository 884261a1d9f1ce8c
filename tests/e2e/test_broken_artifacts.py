"""Artifacts that break under a server that is always asked: never served, and the good version stays."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from random import Random

import grpc
import numpy as np
import pytest

from dropserve_models.publishing import publish as publish_next
from support.onnx_models import publish
from support.prediction_client import Asker, array_of
from support.publisher import RATES, manifest_of, network
from support.server_process import TIMEOUT, ServerProcess, server_process

ROWS = np.random.default_rng(0).standard_normal((3, 6)).astype(np.float32)
POLL_SECONDS = 0.03
COMINGS_AND_GOINGS = 60
TESTS = Path(__file__).parents[1]


@contextmanager
def asked_all_the_time(server: ServerProcess) -> Iterator[set[str]]:
    """Somebody asks until the end of the context, where all was answered, and rightly; by which versions."""
    expected = {str(version): network(version).forward(ROWS, [None] * len(RATES)) for version in range(1, 4)}
    versions: set[str] = set()
    failures: list[str] = []
    enough = threading.Event()

    def ask() -> None:
        with grpc.insecure_channel(server.address) as channel:
            asker = Asker(channel)
            while not enough.is_set():
                try:
                    answer = asker.predict("net", ROWS)
                except grpc.RpcError as error:
                    failures.append(str(error))
                    continue
                if not np.allclose(array_of(answer.mean), expected[answer.version], rtol=1e-3, atol=1e-4):
                    failures.append(f"version {answer.version} answered {array_of(answer.mean)}")
                versions.add(answer.version)

    caller = threading.Thread(target=ask)
    caller.start()
    try:
        until(lambda: "1" in versions or bool(failures))
        yield versions
    finally:
        enough.set()
        caller.join(TIMEOUT)
    assert failures == []
    assert server.process.poll() is None
    assert server.other_lines == []
    assert not any("trace" in line for line in server.log)


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + TIMEOUT
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def load_failures(server: ServerProcess, version: int) -> int:
    return sum(
        line["event"] == "model failed to load" and line["version"] == version for line in list(server.log)
    )


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    publish(tmp_path, "net", network(1).onnx())
    return tmp_path


@pytest.fixture
def server(repository: Path) -> Iterator[ServerProcess]:
    with server_process(repository, "--poll-seconds", str(POLL_SECONDS)) as process:
        yield process


def test_a_copy_that_halts_is_served_when_it_is_whole(server: ServerProcess, repository: Path) -> None:
    """Scenario: somebody copies a version into its place, and the line is bad."""
    whole = network(2).onnx()
    file = repository / "net" / "2" / "model.onnx"
    with asked_all_the_time(server) as versions:
        file.parent.mkdir()
        for count, share in enumerate((0.1, 0.5, 0.9), 1):
            file.write_bytes(whole[: int(share * len(whole))])
            until(lambda enough=count: load_failures(server, 2) >= enough)  # type: ignore[misc]
        assert versions == {"1"}
        file.write_bytes(whole)
        until(lambda: "2" in versions)


@pytest.mark.parametrize("fault", ["cut", "flipped", "emptied", "removed", "a folder", "endless"])
def test_what_is_served_goes_on_whatever_becomes_of_its_file(
    server: ServerProcess, repository: Path, fault: str
) -> None:
    """Scenario: the only version is spoilt in its place; then a good one is published beside it."""
    file = repository / "net" / "1" / "model.onnx"
    good = file.read_bytes()
    middle = len(good) // 2
    with asked_all_the_time(server) as versions:
        match fault:
            case "cut":
                os.truncate(file, middle)
            case "flipped":
                (file.parent / "manifest.json").write_bytes(manifest_of(good).to_json())
                with file.open("r+b") as spoilt:
                    spoilt.seek(middle)
                    spoilt.write(bytes([good[middle] ^ 1]))
            case "emptied":
                file.write_bytes(b"")
            case "removed":
                file.unlink()
            case "a folder":
                file.unlink()
                file.mkdir()
            case "endless":
                file.unlink()
                file.symlink_to("/dev/zero")
        assert "\n" not in server.wait_for("model failed to load", version=1)["reason"]
        publish_next(repository, "net", network(2).onnx(), manifest_of(network(2).onnx()))
        until(lambda: "2" in versions)


def test_versions_that_go_while_they_are_loaded(server: ServerProcess, repository: Path) -> None:
    """Scenario: a version comes, and is deleted, at any moment of its being found, read and served."""
    draw, data = Random(0), network(2).onnx()
    with asked_all_the_time(server) as versions:
        for _ in range(COMINGS_AND_GOINGS):
            folder = publish_next(repository, "net", data, manifest_of(data))
            assert folder.name == "2"
            time.sleep(draw.uniform(0, 6 * POLL_SECONDS))
            shutil.rmtree(folder)
        until(lambda: server.scrape()["dropserve_inflight_requests"] <= 1)
        publish(repository, "net", network(3).onnx(), version=3)
        until(lambda: "3" in versions)
    assert versions == {"1", "2", "3"}


def test_a_disk_that_is_full_when_a_version_is_published(server: ServerProcess, repository: Path) -> None:
    """Scenario: the file system takes a part of the model; the kernel itself says so (RLIMIT_FSIZE)."""
    with asked_all_the_time(server) as versions:
        for room in ("0", "0.5", "0.999"):
            done = subprocess.run(
                publisher(repository, "--room", room),
                cwd=TESTS,
                capture_output=True,
                text=True,
                timeout=TIMEOUT,
                check=False,
            )
            assert (done.returncode, done.stdout) == (1, "")
            assert done.stderr == f"can't publish to {repository}: File too large\n"
        assert os.listdir(repository / "net") == ["1"]
        time.sleep(4 * POLL_SECONDS)
        assert versions == {"1"}
    assert load_failures(server, 2) == 0


def test_a_publisher_that_is_killed(server: ServerProcess, repository: Path) -> None:
    """Scenario: its files are written, and not yet in their place."""
    with asked_all_the_time(server) as versions:
        command = publisher(repository, "--halt", str(TIMEOUT))
        with subprocess.Popen(command, cwd=TESTS, stdout=subprocess.PIPE) as killed:
            assert killed.stdout is not None
            assert killed.stdout.readline() == b"\n"
            killed.kill()
        time.sleep(4 * POLL_SECONDS)
        assert len(os.listdir(repository / "net")) == 2
        assert versions == {"1"}
        publish_next(repository, "net", network(2).onnx(), manifest_of(network(2).onnx()))
        until(lambda: "2" in versions)
    assert load_failures(server, 2) == 0


def publisher(repository: Path, *options: str) -> list[str]:
    return [sys.executable, "-m", "support.publisher", str(repository), "2", *options]
