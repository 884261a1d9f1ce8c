"""From the first line of the log to the exit status."""

from __future__ import annotations

import queue
import signal
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from dropserve.v1 import prediction_pb2
from dropserve.v1.prediction_pb2 import MonteCarlo, PredictRequest
from dropserve_client import Client
from support.example_repository import rows_for
from support.prediction_client import Asker, refusal_of, request
from support.server_process import TIMEOUT, ServerProcess, serve_to_the_end, server_process

SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING
ONE = rows_for("targets", 1)
SLOW = request("classes", rows_for("classes", 500), MonteCarlo(passes=1000, seed=1))
ENDLESS = request("classes", rows_for("classes", 16_000), MonteCarlo(passes=10_000))


def wait_for_inflight(server: ServerProcess, count: int) -> None:
    server.scrape_until(lambda found: found["dropserve_inflight_requests"] >= count)


def told(server: ServerProcess) -> tuple[int, str]:
    status, document = server.healthz()
    return status, document["status"]


def test_before_the_models_are_loaded_everybody_is_told_to_come_back(repository: Path) -> None:
    """Scenario: asked while a model is being warmed up, which takes the import of torch."""
    with (
        server_process(repository, "--warm-up", ready=False) as server,
        grpc.insecure_channel(server.address) as channel,
    ):
        ask, health = Asker(channel), health_pb2_grpc.HealthStub(channel)
        watch = health.Watch(health_pb2.HealthCheckRequest(), timeout=TIMEOUT)  # type: ignore[attr-defined]
        assert next(watch).status == NOT_SERVING
        assert told(server) == (503, "NOT_SERVING")
        refusal = ask.refused(request("targets", ONE))
        assert refusal.code is grpc.StatusCode.UNAVAILABLE
        assert "starting" in refusal.message
        with pytest.raises(grpc.RpcError) as early:
            ask.stub.ListModels(prediction_pb2.ListModelsRequest(), timeout=TIMEOUT)
        assert refusal_of(early.value).code is grpc.StatusCode.UNAVAILABLE
        assert next(watch).status == SERVING
        assert told(server) == (200, "SERVING")
        assert "torch" in server.loaded_libraries()
        assert ask.predict("targets", ONE).mean.shape == [1, 2]


@pytest.mark.parametrize("workers", ["1", "2"])
def test_a_client_waits_for_a_server_that_starts(repository: Path, workers: str) -> None:
    """Its port is open before its models are loaded; that of several workers is closed until then."""
    options = ("--warm-up", "--workers", workers)
    with server_process(repository, *options, ready=False, listening=False) as server:
        event = "supervising" if workers == "2" else "listening"
        with Client(f"127.0.0.1:{server.wait_for(event)['grpc_port']}") as client:
            assert not client.is_ready("targets")
            client.wait_until_ready("targets", timeout=TIMEOUT)
            assert client.predict("targets", ONE, timeout=TIMEOUT).mean.shape == (1, 2)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_signal_says_not_serving_finishes_what_is_in_flight_and_exits_0(
    repository: Path, number: signal.Signals
) -> None:
    with (
        server_process(repository, "--drain-seconds", "3") as server,
        grpc.insecure_channel(server.address) as channel,
    ):
        ask, health = Asker(channel), health_pb2_grpc.HealthStub(channel)
        watches = [
            health.Watch(health_pb2.HealthCheckRequest(service=name), timeout=TIMEOUT)  # type: ignore[attr-defined]
            for name in ("", "targets")
        ]
        assert [next(watch).status for watch in watches] == [SERVING, SERVING]
        before = ask.stub.Predict.future(SLOW, timeout=TIMEOUT)
        wait_for_inflight(server, 1)
        server.signal(number)
        assert [next(watch).status for watch in watches] == [NOT_SERVING, NOT_SERVING]
        assert told(server) == (503, "NOT_SERVING")
        during = ask.predict("targets", ONE)  # still taken: balancers need time to notice
        assert during.mean.shape == [1, 2]
        for watch in watches:
            with pytest.raises(grpc.RpcError) as end:
                next(watch)
            assert refusal_of(end.value).code is grpc.StatusCode.UNAVAILABLE
        assert before.result().passes == 1000
        assert server.wait() == 0
        with pytest.raises(grpc.RpcError) as gone:
            ask.predict("targets", ONE)
        assert refusal_of(gone.value).code is grpc.StatusCode.UNAVAILABLE
    assert [line["event"] for line in server.log][-2:] == ["draining", "stopped"]
    assert server.log[-1]["cut_off"] == 0
    assert server.other_lines == []


def test_streams_end_at_a_signal_when_what_they_asked_is_answered(repository: Path) -> None:
    outgoing: queue.SimpleQueue[PredictRequest | None] = queue.SimpleQueue()

    def questions() -> Iterator[PredictRequest]:
        while (question := outgoing.get(timeout=TIMEOUT)) is not None:
            yield question

    with server_process(repository) as server, grpc.insecure_channel(server.address) as channel:
        stub = Asker(channel).stub
        busy = stub.PredictStream(questions(), timeout=TIMEOUT)
        outgoing.put(SLOW)
        wait_for_inflight(server, 1)
        server.signal(signal.SIGTERM)
        assert next(busy).passes == 1000
        with pytest.raises(grpc.RpcError) as end:
            next(busy)
        assert refusal_of(end.value).code is grpc.StatusCode.UNAVAILABLE
        assert "draining" in refusal_of(end.value).message
        outgoing.put(None)
        assert server.wait() == 0


def test_a_second_signal_stops_at_once(repository: Path) -> None:
    with server_process(repository) as server, grpc.insecure_channel(server.address) as channel:
        endless = Asker(channel).stub.Predict.future(ENDLESS, timeout=TIMEOUT)
        wait_for_inflight(server, 1)
        server.signal(signal.SIGTERM)
        server.wait_for("draining")
        server.signal(signal.SIGTERM)
        assert server.wait() == 1
        assert refusal_of(endless.exception()).code in (
            grpc.StatusCode.UNAVAILABLE,
            grpc.StatusCode.CANCELLED,
        )
    assert server.log[-1]["event"] == "stopped"
    assert server.log[-1]["cut_off"] == 1
    assert server.other_lines == []


@pytest.mark.parametrize("options", [[], ["--workers", "2"]])
def test_a_terminal_that_is_closed_drains_once_however_often_it_says_so(
    repository: Path, options: list[str]
) -> None:
    with server_process(repository, *options) as server, grpc.insecure_channel(server.address) as channel:
        slow = Asker(channel).stub.Predict.future(SLOW, timeout=TIMEOUT)
        wait_for_inflight(server, 1)
        for _ in range(3):
            server.signal(signal.SIGHUP)
        assert slow.result().passes == 1000
        assert server.wait() == 0


def test_a_terminal_that_is_closed_while_the_server_starts_stops_it_in_order(repository: Path) -> None:
    """Scenario: the signal comes as soon as it is held back, long before there is a loop to handle it."""
    with server_process(repository, ready=False, listening=False) as server:
        deadline = time.monotonic() + TIMEOUT
        while not blocked_signals(server) & 1 << signal.SIGHUP - 1:
            assert time.monotonic() < deadline
        server.signal(signal.SIGHUP)
        assert server.wait() == 0
    assert "serving" not in [line["event"] for line in server.log]
    assert server.other_lines == []


def blocked_signals(server: ServerProcess) -> int:
    """The mask of signals that its main thread has blocked; bit 0 is signal 1."""
    lines = Path(f"/proc/{server.pid}/status").read_text().splitlines()
    return int(next(line.split()[1] for line in lines if line.startswith("SigBlk:")), 16)


def test_nohup_is_respected(repository: Path) -> None:
    ignoring = signal.signal(signal.SIGHUP, signal.SIG_IGN)  # as a child inherits it
    try:
        with server_process(repository) as server, grpc.insecure_channel(server.address) as channel:
            server.signal(signal.SIGHUP)
            assert Asker(channel).predict("targets", ONE).mean.shape == [1, 2]
            assert server.stop() == 0
    finally:
        signal.signal(signal.SIGHUP, ignoring)


def test_grace_has_an_end(repository: Path) -> None:
    with (
        server_process(repository, "--grace-seconds", "0.3") as server,
        grpc.insecure_channel(server.address) as channel,
    ):
        endless = Asker(channel).stub.Predict.future(ENDLESS, timeout=TIMEOUT)
        wait_for_inflight(server, 1)
        assert server.stop() == 1
        assert endless.exception() is not None
    assert server.log[-1]["cut_off"] == 1


def test_a_signal_while_loading_ends_the_start(repository: Path) -> None:
    with server_process(repository, "--warm-up", ready=False) as server:
        assert server.stop() == 0
    assert "serving" not in {line["event"] for line in server.log}


def test_without_a_model_it_stays_up_and_says_so(tmp_path: Path) -> None:
    with server_process(tmp_path, ready=False) as server, grpc.insecure_channel(server.address) as channel:
        assert server.wait_for("no model is served")["repository"] == str(tmp_path)
        health = health_pb2_grpc.HealthStub(channel)
        answer = health.Check(health_pb2.HealthCheckRequest(), timeout=TIMEOUT)  # type: ignore[attr-defined]
        assert answer.status == NOT_SERVING
        assert Asker(channel).refused(request("x", ONE)).code is grpc.StatusCode.NOT_FOUND
        assert server.stop() == 0


def test_ports_that_are_taken_are_told_in_one_line(repository: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        for option in ("--grpc-port", "--metrics-port"):
            done = serve_to_the_end("--repository", str(repository), "--host", "127.0.0.1", option, port)
            assert done.returncode == 1
            (line,) = done.stderr.splitlines()
            assert line.startswith("dropserve serve: can't listen on ")
            assert port in line


def test_two_servers_do_not_share_a_port_silently(server: ServerProcess, repository: Path) -> None:
    done = serve_to_the_end(
        "--repository", str(repository), "--host", "127.0.0.1", "--grpc-port", str(server.grpc_port)
    )
    assert done.returncode == 1
    assert "can't listen on gRPC port" in done.stderr


@pytest.mark.skipif(Path("/dev/nvidiactl").exists(), reason="this machine has a GPU")
def test_without_cuda_a_server_told_to_use_it_does_not_start(repository: Path) -> None:
    done = serve_to_the_end("--repository", str(repository), "--device", "cuda")
    assert done.returncode == 1
    last = done.stderr.splitlines()[-1]
    assert last.startswith("dropserve serve: device cuda was asked for")
    assert "Traceback" not in done.stderr


def test_wrong_usage_ends_with_status_2() -> None:
    done = serve_to_the_end()
    assert (done.returncode, done.stdout) == (2, "")
    (line,) = done.stderr.splitlines()
    assert line.startswith("dropserve serve: --repository is required")
