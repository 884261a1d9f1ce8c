"""What a connection may take: headers, streams, time, pings; and clients that are slow, or stuck."""

from __future__ import annotations

import itertools
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import grpc
import pytest

from dropserve.v1.prediction_pb2 import MonteCarlo, PredictRequest
from dropserve_server.metrics_http import MAX_CONNECTIONS
from support import http2
from support.example_repository import rows_for
from support.prediction_client import Asker, request
from support.server_process import TIMEOUT, ServerProcess, server_process

ONE = rows_for("targets", 1)


@pytest.fixture(scope="module")
def strict(repository: Path) -> Iterator[ServerProcess]:
    """A server that gives its connections little."""
    limits = {
        "max-streams": 7,
        "max-header-bytes": 4096,
        "max-connections": 60,
        "connection-age-seconds": 2,
        "connection-grace-seconds": 0.2,
        "keepalive-seconds": 1,
        "handshake-seconds": 3,
    }
    options = [text for name, value in limits.items() for text in (f"--{name}", str(value))]
    with server_process(repository, *options) as process:
        yield process


def test_the_limits_of_a_connection_are_told_kept_and_not_noticed(strict: ServerProcess) -> None:
    """Scenario: one connection from its first frame to its last, while somebody else predicts."""
    seen: list[tuple[int, int, bytes]] = []

    def watch() -> None:
        with http2.open_connection(strict.grpc_port) as connection:
            seen.extend(http2.frames(connection))

    watcher = threading.Thread(target=watch)
    watcher.start()
    with grpc.insecure_channel(strict.address) as channel:
        ask = Asker(channel)
        while watcher.is_alive():  # its own connection grows old too, and another takes its place
            assert ask.predict("targets", ONE).mean.shape == [1, 2]
    told = next(http2.settings(payload) for kind, flags, payload in seen if kind == http2.SETTINGS)
    assert told[http2.MAX_CONCURRENT_STREAMS] == 7
    assert told[http2.MAX_HEADER_LIST_SIZE] == 4096
    # Silent for a second: is anybody there? And after two it is old: it must go.
    kinds = [kind for kind, _, _ in seen]
    assert kinds.index(http2.SETTINGS) < kinds.index(http2.PING) < kinds.index(http2.GOAWAY)


def test_a_client_that_pings_without_end_is_sent_away(strict: ServerProcess) -> None:
    with http2.open_connection(strict.grpc_port) as connection:
        connection.sendall(http2.frame(http2.PING, bytes(8)) * 20)
        goaways = [payload for kind, _, payload in http2.frames(connection) if kind == http2.GOAWAY]
    assert http2.ENHANCE_YOUR_CALM in map(http2.error_code, goaways)


def test_a_header_over_the_limit_is_refused_and_the_connection_lives_on(strict: ServerProcess) -> None:
    with grpc.insecure_channel(strict.address) as channel:
        ask = Asker(channel)
        with pytest.raises(grpc.RpcError) as refusal:
            ask.stub.Predict(request("targets", ONE), timeout=TIMEOUT, metadata=(("x", "y" * 5000),))
        assert refusal.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert ask.stub.Predict(request("targets", ONE), timeout=TIMEOUT, metadata=(("x", "y" * 2000),)).mean


def hung_up(connection: socket.socket) -> bool:
    """Whether the server closes a connection on which nothing more is said."""
    try:
        while connection.recv(4096):
            pass
    except ConnectionResetError:
        pass
    except TimeoutError:
        return False
    return True


def test_connections_that_are_never_finished_are_closed_and_hold_nobody_up(strict: ServerProcess) -> None:
    with ExitStack() as stack:
        stuck = [stack.enter_context(http2.connect(strict.grpc_port)) for _ in range(40)]
        for number, connection in enumerate(stuck):
            connection.sendall(http2.PREFACE[: number % len(http2.PREFACE)])
        with grpc.insecure_channel(strict.address) as channel:
            assert Asker(channel).predict("targets", ONE).mean.shape == [1, 2]
            # Forty are taken; of twice as many more than twenty must be sent away at once.
            started = time.monotonic()
            more = [stack.enter_context(http2.connect(strict.grpc_port)) for _ in range(80)]
            assert any(
                hung_up(connection) and time.monotonic() < started + 2.5 for connection in reversed(more)
            )
        assert all(hung_up(connection) for connection in stuck)
    with grpc.insecure_channel(strict.address) as channel:
        assert Asker(channel).predict("targets", ONE).mean.shape == [1, 2]


def test_a_metrics_port_full_of_stuck_clients_answers(strict: ServerProcess) -> None:
    with ExitStack() as stack:
        stuck = [stack.enter_context(http2.connect(strict.metrics_port)) for _ in range(2 * MAX_CONNECTIONS)]
        for number, connection in enumerate(stuck):
            connection.sendall((b"", b"GET /metr")[number % 2])
        started = time.monotonic()
        assert strict.scrape()["dropserve_inflight_requests"] == 0
        assert time.monotonic() - started < 5
        # Each has a thread, so there is an end to how many there may be: the oldest went.
        assert all(hung_up(connection) for connection in stuck[: MAX_CONNECTIONS - 1])
        threads = len(list(Path(f"/proc/{strict.pid}/task").iterdir()))
        assert threads < MAX_CONNECTIONS + 60


def test_streams_that_are_never_read_hold_nobody_up(repository: Path) -> None:
    """Scenario: each asks for more than anybody would buffer, and does not read a byte of it."""
    large = request("classes", rows_for("classes", 640), MonteCarlo(passes=100, seed=1, return_samples=True))
    leaving = threading.Event()

    def questions() -> Iterator[PredictRequest]:
        for _ in itertools.takewhile(lambda _: not leaving.is_set(), range(200)):
            yield large

    with server_process(repository) as server, ExitStack() as stack:
        stack.callback(leaving.set)
        channel = stack.enter_context(grpc.insecure_channel(server.address))
        ask = Asker(channel)
        ask.stub.Predict(large, timeout=TIMEOUT)
        before = server.resident_bytes()
        for _ in range(8):
            options = [("grpc.use_local_subchannel_pool", 1)]
            channel = stack.enter_context(grpc.insecure_channel(server.address, options=options))
            stack.callback(Asker(channel).stub.PredictStream(questions(), timeout=TIMEOUT).cancel)
        slowest = 0.0
        for _ in range(100):
            started = time.monotonic()
            ask.predict("targets", ONE)
            slowest = max(slowest, time.monotonic() - started)
        assert slowest < 5
        assert ask.predict("classes", rows_for("classes", 1), MonteCarlo(passes=10)).passes == 10
        rows = 'dropserve_rows_total{mode="monte_carlo",model="classes"}'
        deadline = time.monotonic() + TIMEOUT
        while server.scrape()[rows] < 9 * 640:  # until every stream may have been answered
            assert time.monotonic() < deadline
        # They ask for 1.2 GB; each is given what is on its way, and the answers of 32 requests at most.
        assert server.scrape()[rows] < 8 * 200 * 640 / 2
        assert server.resident_bytes() < before + 400 * 2**20
        started = time.monotonic()
        server.stop()
        assert time.monotonic() - started < 10
    assert server.other_lines == []
