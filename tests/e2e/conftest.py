"""One repository, and one server of it, that the tests share."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest

from support import example_repository
from support.prediction_client import Asker
from support.server_process import ServerProcess, server_process


@pytest.fixture(scope="session")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return example_repository.fill(tmp_path_factory.mktemp("repository"))


@pytest.fixture(scope="session")
def server(repository: Path) -> Iterator[ServerProcess]:
    with server_process(repository, "--versions", "2", "--max-passes", "5000") as process:
        yield process


@pytest.fixture(scope="session")
def ask(server: ServerProcess) -> Iterator[Asker]:
    with grpc.insecure_channel(server.address, options=[("grpc.max_receive_message_length", -1)]) as channel:
        yield Asker(channel)
