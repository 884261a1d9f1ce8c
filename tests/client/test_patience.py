"""Calls refused because the queue is full: made again when the server says, where the caller wants it."""

from __future__ import annotations

import math
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

import grpc
import numpy as np
import pytest

from dropserve_client import Client, DeadlineExceededError, ResourceExhaustedError, ServerError
from support.fake_server import WAIT_SECONDS, Failure, FakeService, FullService, retry_details, serving

X = np.zeros((2, 3), np.float32)
LATER = 0.1  # seconds
INT64_MAX = 2**63 - 1

LARGE_PREDICTION = """
import math, sys
import numpy as np
from dropserve_client import Client
Client(sys.argv[1], patient=True, timeout=math.inf, request_rows=1).predict("toy", np.eye(4, 3, -1))
"""


def full(seconds: float = LATER) -> Failure:
    return Failure(grpc.StatusCode.RESOURCE_EXHAUSTED, "full", retry_details(seconds))


def test_a_refusal_is_raised_at_once_and_says_how_long_to_wait(client: Any, service: FakeService) -> None:
    service.failures.append(full())
    with pytest.raises(ResourceExhaustedError, match=r"^full$") as caught:
        client.predict("toy", X)
    assert caught.value.retry_seconds == pytest.approx(LATER)
    assert len(service.predict_calls) == 1


def test_a_patient_client_asks_again_when_it_is_told(
    connect: Callable[..., Any], address: str, service: FakeService
) -> None:
    service.failures.extend([full(), full()])
    started = time.monotonic()
    assert connect(address, patient=True).predict("toy", X).mean.shape[0] == 2
    assert time.monotonic() - started >= 2 * LATER
    assert len(service.predict_calls) == 3


def test_every_request_of_a_large_input_waits_for_itself(
    connect: Callable[..., Any], address: str, service: FakeService
) -> None:
    client = connect(address, patient=True, request_rows=1)
    client.predict("toy", X)  # it knows the model
    known = len(service.predict_calls)
    service.failures.append(full())
    assert client.predict("toy", X).mean.shape[0] == 2
    assert len(service.predict_calls) == known + 3


def test_a_server_that_knows_no_time_yet_is_not_hammered(
    connect: Callable[..., Any], address: str, service: FakeService
) -> None:
    service.failures.extend([full(0.0)] * 5)
    started = time.monotonic()
    connect(address, patient=True).predict("toy", X)
    assert time.monotonic() - started >= 5 * 0.02


def test_patience_ends_with_the_deadline(
    connect: Callable[..., Any], address: str, service: FakeService
) -> None:
    """The refusal says more than that the time is over, and nobody waits for it."""
    service.failures.append(full())
    with pytest.raises(ResourceExhaustedError, match="full"):
        connect(address, patient=True, timeout=LATER).predict("toy", X)
    assert len(service.predict_calls) == 1


@pytest.mark.parametrize("seconds", [90_000, INT64_MAX])
def test_nobody_waits_for_more_than_a_day(
    connect: Callable[..., Any], address: str, service: FakeService, seconds: int
) -> None:
    """Nor for longer than a clock can be set to."""
    service.failures.append(full(seconds))
    with pytest.raises(ResourceExhaustedError, match="full") as caught:
        connect(address, patient=True, timeout=math.inf).predict("toy", X)
    assert caught.value.retry_seconds == float(seconds)
    assert len(service.predict_calls) == 1


class OneFails(FullService):
    """Fails a row of ones once another one has been refused twice."""

    def Predict(self, request: Any, context: Any) -> Any:
        if np.frombuffer(request.inputs.raw, "<f4")[0] == 1:
            while len(self.refused) < 2 and context.is_active():
                threading.Event().wait(0.01)
            context.abort(grpc.StatusCode.INTERNAL, "a bug")
        return super().Predict(request, context)


def test_a_part_that_is_abandoned_asks_no_more() -> None:
    service = OneFails(later=0.0)
    rows = np.repeat(np.arange(3, dtype=np.float32), 3).reshape(3, 3)
    with (
        serving(service) as address,
        Client(address, patient=True, timeout=math.inf, request_rows=1) as client,
    ):
        with pytest.raises(ServerError, match="a bug"):
            client.predict("toy", rows)
        asked = len(service.refused)
        threading.Event().wait(5 * LATER)  # it was to ask every .02 s
        assert len(service.refused) <= asked + 1  # one may have been under way


def test_who_leaves_a_series_leaves_nobody_waiting() -> None:
    service, others = FullService(), set(threading.enumerate())
    with serving(service) as address, Client(address, patient=True, timeout=math.inf) as client:
        answers: Any = client.predict_many("toy", [X, *[X + 1] * 9], in_flight=4)
        assert len(next(answers).mean) == 2
        while len(service.refused) < 3:
            threading.Event().wait(0.01)
        started = set(threading.enumerate()) - others
        waiting = [thread for thread in started if thread.name.startswith("dropserve")]
        assert len(waiting) >= 3
        answers.close()
        for thread in waiting:
            thread.join(WAIT_SECONDS)
            assert not thread.is_alive()
    assert len(service.refused) == 3


def test_ctrl_c_ends_the_process_at_once() -> None:
    """Python waits at its end for the threads that make the requests of a large input."""
    service = FullService()
    with (
        serving(service) as address,
        subprocess.Popen(
            [sys.executable, "-c", LARGE_PREDICTION, address], stderr=subprocess.PIPE, text=True
        ) as process,
    ):
        try:
            while len(service.refused) < 2 and process.poll() is None:
                threading.Event().wait(0.01)
            process.send_signal(signal.SIGINT)
            _, told = process.communicate(timeout=WAIT_SECONDS)
        finally:
            process.kill()
    assert told.rstrip().endswith("KeyboardInterrupt")
    assert len(service.refused) == 2


def test_limits_that_no_waiting_helps_against_are_raised_at_once(
    connect: Callable[..., Any], address: str, service: FakeService
) -> None:
    service.failures.append(Failure(grpc.StatusCode.RESOURCE_EXHAUSTED, "too many rows"))
    with pytest.raises(ResourceExhaustedError, match="too many rows") as caught:
        connect(address, patient=True).predict("toy", X)
    assert caught.value.retry_seconds is None


def test_other_failures_try_no_patience(
    connect: Callable[..., Any], address: str, service: FakeService
) -> None:
    service.failures.append(Failure(grpc.StatusCode.DEADLINE_EXCEEDED, "late", retry_details(LATER)))
    with pytest.raises(DeadlineExceededError):
        connect(address, patient=True).predict("toy", X)
    assert len(service.predict_calls) == 1
