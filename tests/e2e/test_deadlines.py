"""Callers that left, or can't wait: their work is not done. Too much work: refused at once."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest

from dropserve.v1.prediction_pb2 import MonteCarlo
from support.example_repository import rows_for
from support.prediction_client import Asker, refusal_of, request
from support.server_process import TIMEOUT, ServerProcess, server_process

QUEUE_ROWS = 4096
SLOW = request("classes", rows_for("classes", 4000), MonteCarlo(passes=700, seed=1), request_id="slow")
# With so many of these under way, each having a turn of 20 ms, whoever comes waits for seconds.
HEAVY = request("classes", rows_for("classes", 30), MonteCarlo(passes=10_000, seed=1))
HEAVIES, WAITING = 120, 30


@pytest.fixture
def server(repository: Path) -> Iterator[ServerProcess]:
    """One Monte Carlo worker, so that what is sent meanwhile waits."""
    options = ["--monte-carlo-workers", "1", "--max-rows", str(QUEUE_ROWS), "--queue-rows", str(QUEUE_ROWS)]
    with server_process(repository, *options, "--queue-seconds", "600", "--warm-up") as process:
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

    assert slow.result().passes == 700
    ask.predict("targets", rows_for("targets", 3), MonteCarlo(passes=10))
    found = server.scrape()
    assert found['dropserve_rows_total{mode="monte_carlo",model="targets"}'] == 3
    assert found['dropserve_passes_total{model="targets"}'] == 10
    labels = 'code="DEADLINE_EXCEEDED",mode="monte_carlo",model="targets",version="2"'
    assert found[f"dropserve_requests_total{{{labels}}}"] == 1
    assert found["dropserve_inflight_requests"] == 0
    assert server.wait_for("request failed", request_id="expired")["code"] == "DEADLINE_EXCEEDED"


def test_who_left_or_waited_too_long_is_never_begun(server: ServerProcess, ask: Asker) -> None:
    """Scenario: of many that wait behind others, some leave, some run out of time, and some stay."""
    ask.predict("targets", rows_for("targets", 1), MonteCarlo(passes=10))
    before = server.scrape()
    heavies = [ask.stub.Predict.future(HEAVY, timeout=TIMEOUT) for _ in range(HEAVIES)]
    wait_for_inflight(server, HEAVIES)
    question = request("targets", rows_for("targets", 2), MonteCarlo(passes=10))
    leaving = [ask.stub.Predict.future(question, timeout=TIMEOUT) for _ in range(WAITING)]
    staying = [ask.stub.Predict.future(question, timeout=TIMEOUT) for _ in range(3)]
    wait_for_inflight(server, HEAVIES + WAITING + len(staying))
    for call in leaving:
        call.cancel()
    # The server takes them to be in time: it has never computed what is before them.
    late = [ask.stub.Predict.future(question, timeout=0.4) for _ in range(WAITING)]
    codes = {refusal_of(call.exception()).code for call in late}
    assert codes == {grpc.StatusCode.DEADLINE_EXCEEDED}
    wait_for_inflight(server, HEAVIES + len(staying))
    assert not staying[0].done(), "those before it were too fast for this test to mean anything"

    assert [call.result().passes for call in staying] == [10] * len(staying)
    assert not any(call.done() for call in heavies)
    for call in heavies:
        call.cancel()
    wait_for_inflight(server, 0)
    found = server.scrape()
    rows = 'dropserve_rows_total{mode="monte_carlo",model="targets"}'
    computed = 'dropserve_batch_rows_sum{mode="monte_carlo",model="targets"}'
    for series in (rows, computed):
        assert found[series] - before[series] == 2 * len(staying)
    assert found['dropserve_queue_rows{mode="monte_carlo",model="targets"}'] == 0
    labels = 'mode="monte_carlo",model="targets",version="2"'
    for code in ("CANCELLED", "DEADLINE_EXCEEDED"):
        assert found[f'dropserve_requests_total{{code="{code}",{labels}}}'] == WAITING


def test_small_requests_pass_between_the_passes_of_large_ones(server: ServerProcess, ask: Asker) -> None:
    large = request("classes", rows_for("classes", 12), MonteCarlo(passes=10_000, seed=1))
    alone = ask.stub.Predict(large, timeout=TIMEOUT)
    several = [ask.stub.Predict.future(large, timeout=TIMEOUT) for _ in range(6)]
    small = request("targets", rows_for("targets", 2), MonteCarlo(passes=10, seed=2))
    answer = ask.stub.Predict(small, timeout=TIMEOUT)
    assert not any(call.done() for call in several), "too fast for this test to mean anything"
    assert ask.stub.Predict(small, timeout=TIMEOUT).mean == answer.mean
    for call in several:  # by turns, and not a bit otherwise
        answer = call.result()
        assert (answer.mean, answer.variance, answer.passes) == (alone.mean, alone.variance, 10_000)


def test_a_deadline_that_cant_be_met_is_refused_at_once(server: ServerProcess, ask: Asker) -> None:
    ask.stub.Predict(HEAVY, timeout=TIMEOUT)  # what it takes is known from now on
    # Whoever is as patient as these is taken, however slow the machine.
    heavies = [ask.stub.Predict.future(HEAVY, timeout=100 * TIMEOUT) for _ in range(HEAVIES // 2)]
    wait_for_inflight(server, len(heavies))
    refusal = ask.refused(request("targets", rows_for("targets", 1), MonteCarlo(passes=10)), timeout=0.6)
    assert refusal.code is grpc.StatusCode.DEADLINE_EXCEEDED
    assert "most of it in the queue" in refusal.message  # the server says so: the caller still waited
    assert server.scrape()['dropserve_rejected_total{model="targets",reason="deadline"}'] == 1
    for call in heavies:
        call.cancel()
    wait_for_inflight(server, 0)


def test_a_full_queue_refuses_at_once_and_the_other_mode_goes_on(server: ServerProcess, ask: Asker) -> None:
    slow = ask.stub.Predict.future(SLOW, timeout=TIMEOUT)
    wait_for_inflight(server, 1)
    refusal = ask.refused(request("classes", rows_for("classes", 97), MonteCarlo(passes=10)))
    assert refusal.code is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert "4000 rows are in flight in monte_carlo mode and 97 more don't fit" in refusal.message
    assert ask.predict("classes", rows_for("classes", 97)).mean.shape == [97, 3]
    assert not slow.done(), "the slow request was too fast for this test to mean anything"
    assert slow.result().passes == 700
    assert ask.predict("classes", rows_for("classes", 97), MonteCarlo(passes=10)).passes == 10
    assert server.scrape()['dropserve_rejected_total{model="classes",reason="queue_full"}'] == 1
