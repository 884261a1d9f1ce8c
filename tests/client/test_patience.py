"""Calls refused because the queue is full: made again when the server says, where the caller wants it."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import grpc
import numpy as np
import pytest

from dropserve_client import DeadlineExceededError, ResourceExhaustedError
from support.fake_server import Failure, FakeService, retry_details

X = np.zeros((2, 3), np.float32)
LATER = 0.1  # seconds


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
