"""Callers that left, or can't wait: their work is not done. Too much work: refused at once."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest

from dropserve.v1.prediction_pb2 import MonteCarlo
from support.example_repository import rows_for
from support.prediction_client import Asker, request
from support.server_process import TIMEOUT, ServerProcess, server_process

QUEUE_ROWS = 4096
SLOW = request("classes", rows_for("classes", 4000), MonteCarlo(passes=1500, seed=1), request_id="slow")


@pytest.fixture
def server(repository: Path) -> Iterator[ServerProcess]:
    """One Monte Carlo worker, so that what is sent meanwhile waits."""
    options = ["--monte-carlo-workers", "1", "--max-rows", str(QUEUE_ROWS), "--queue-rows", str(QUEUE_ROWS)]
    with server_process(repository, *options, "--warm-up") as process:
        yield process


@pytest.fixture
def ask(server: ServerProcess) -> Iterator[Asker]:
    with grpc.insecure_channel(server.address) as channel:
        yield Asker(channel)


def wait_for_inflight(server: ServerProcess, count: int) -> None:
    deadline = time.monotonic() + TIMEOUT
    while server.scrape()["dropserve_inflight_requests"] != count:
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_expired_requests_are_never_finished(server: ServerProcess, ask: Asker) -> None:
    slow = ask.stub.Predict.future(SLOW, timeout=TIMEOUT)
    wait_for_inflight(server, 1)

    # Large ones: small ones pass between the parts of the slow one, and are answered.
    rows, passes = rows_for("targets", 90), MonteCarlo(passes=10_000)
    one = request("targets", rows, passes, request_id="expired")
    expired = ask.refused(one, timeout=0.1)
    assert expired.code is grpc.StatusCode.DEADLINE_EXCEEDED

    assert not slow.done(), "the slow request was too fast for this test to mean anything"

    assert slow.result().passes == 1500
    ask.predict("targets", rows_for("targets", 3), MonteCarlo(passes=10))
    found = server.scrape()
    assert found['dropserve_rows_total{mode="monte_carlo",model="targets"}'] == 3
    assert found['dropserve_passes_total{model="targets"}'] == 10
    labels = 'code="DEADLINE_EXCEEDED",mode="monte_carlo",model="targets",version="2"'
    assert found[f"dropserve_requests_total{{{labels}}}"] == 1
    assert found["dropserve_inflight_requests"] == 0
    assert server.wait_for("request failed", request_id="expired")["code"] == "DEADLINE_EXCEEDED"


def test_a_full_queue_refuses_at_once_and_the_other_mode_goes_on(server: ServerProcess, ask: Asker) -> None:
    slow = ask.stub.Predict.future(SLOW, timeout=TIMEOUT)
    wait_for_inflight(server, 1)
    refusal = ask.refused(request("classes", rows_for("classes", 97), MonteCarlo(passes=10)))
    assert refusal.code is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert "4000 rows are in flight in monte_carlo mode and 97 more don't fit" in refusal.message
    assert ask.predict("classes", rows_for("classes", 97)).mean.shape == [97, 3]
    assert not slow.done(), "the slow request was too fast for this test to mean anything"
    assert slow.result().passes == 1500
    assert ask.predict("classes", rows_for("classes", 97), MonteCarlo(passes=10)).passes == 10
    assert server.scrape()['dropserve_rejected_total{model="classes",reason="queue_full"}'] == 1
