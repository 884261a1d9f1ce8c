"""Waiting for a server that starts, or has yet to."""

from __future__ import annotations

import asyncio
import math
import socket
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
import numpy as np
import pytest

from dropserve_client import (
    AsyncClient,
    Client,
    ClosedError,
    DeadlineExceededError,
    ResourceExhaustedError,
    ServerError,
)
from dropserve_client.deadline import Deadline
from support.fake_server import WAIT_SECONDS, FakeService, FullService, HealthService, serving

ROWS = np.eye(3, 3, -1, np.float32)


class Starting(HealthService):
    """Serves from the fourth time on that it is asked."""

    def _check(self, request: bytes, context: Any) -> bytes:
        if len(self.asked) == 3:
            self.status = self.SERVING
        return super()._check(request, context)


@pytest.mark.parametrize("before", [HealthService.NOT_SERVING, None])
@pytest.mark.parametrize("timeout", [None, math.inf])
def test_a_server_that_starts_is_asked_until_it_serves(
    connect: Callable[..., Any], before: bytes | None, timeout: float | None
) -> None:
    health = Starting(before)
    with serving(None, health=health) as address:
        assert connect(address).wait_until_ready("toy", timeout=timeout) is None
    assert health.asked == [b"\n\x03toy"] * 4


def test_a_server_that_has_yet_to_start_is_waited_for(connect: Callable[..., Any]) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    client = connect(address)
    client.is_ready(timeout=1)  # it has looked, and found nobody
    entered, done = threading.Event(), threading.Event()

    def start() -> None:
        threading.Event().wait(0.3)
        with serving(None, health=HealthService(), address=address):
            entered.set()
            done.wait(WAIT_SECONDS)

    with ThreadPoolExecutor(1) as pool:
        started = pool.submit(start)
        client.wait_until_ready(timeout=WAIT_SECONDS)
        assert entered.is_set()
        done.set()
        started.result(WAIT_SECONDS)


@pytest.mark.parametrize(
    ("status", "model", "message"),
    [
        (HealthService.NOT_SERVING, "", "the server is not ready: it says that it is not serving"),
        (HealthService.NOT_SERVING, "toy", "model 'toy' is not ready: it says that it is not serving"),
        (None, "toy", "model 'toy' is not ready: as the test wants it"),
    ],
)
def test_who_is_not_ready_in_time_and_why_is_told(
    connect: Callable[..., Any], status: bytes | None, model: str, message: str
) -> None:
    with serving(None, health=HealthService(status)) as address:
        with pytest.raises(DeadlineExceededError) as late:
            connect(address).wait_until_ready(model, timeout=0.3)
        assert str(late.value) == message
        with pytest.raises(DeadlineExceededError):
            connect(address, timeout=0.3).wait_until_ready(model)
    with pytest.raises(DeadlineExceededError, match=r"is not ready: no dropserve server .*refused"):
        connect(address).wait_until_ready(model, timeout=0.3)


def test_one_that_says_nothing_is_no_more_ready(connect: Callable[..., Any]) -> None:
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        address = f"127.0.0.1:{silent.getsockname()[1]}"
        with pytest.raises(DeadlineExceededError, match=r"is not ready: no answer from .* within 0\.3 s"):
            connect(address).wait_until_ready(timeout=0.3)


def test_what_waiting_does_not_change_is_told_at_once(connect: Callable[..., Any], address: str) -> None:
    """A server without health is none of ours."""
    with pytest.raises(ServerError, match="no dropserve server, or an older one") as error:
        connect(address).wait_until_ready(timeout=WAIT_SECONDS)
    assert error.value.code is grpc.StatusCode.UNIMPLEMENTED


def test_who_closes_the_client_waits_no_longer() -> None:
    health = HealthService(HealthService.NOT_SERVING)
    with serving(FakeService(), health=health) as address, ThreadPoolExecutor(1) as pool:
        client = Client(address)
        waiting = pool.submit(client.wait_until_ready, timeout=WAIT_SECONDS)
        while len(health.asked) < 2:
            threading.Event().wait(0.01)
        client.close()
        with pytest.raises(ClosedError):
            waiting.result(WAIT_SECONDS)


@pytest.fixture
def pauses(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The pauses that clients have begun to wait for."""
    begun: list[float] = []
    pause = Deadline.pause

    def noted(self: Deadline, refusal: ResourceExhaustedError) -> float:
        begun.append(pause(self, refusal))
        return begun[-1]

    monkeypatch.setattr(Deadline, "pause", noted)
    return begun


# One request; and one whose second and third part are refused.
@pytest.mark.parametrize(("request_rows", "refused"), [(3, 1), (1, 2)])
def test_who_closes_the_client_is_patient_no_longer(
    pauses: list[float], request_rows: int, refused: int
) -> None:
    service = FullService()
    with serving(service) as address, ThreadPoolExecutor(1) as pool:
        client = Client(address, patient=True, timeout=math.inf, request_rows=request_rows)
        waiting = pool.submit(client.predict, "toy", ROWS)
        while len(pauses) < refused:
            threading.Event().wait(0.01)
        client.close()
        with pytest.raises(ClosedError):
            waiting.result(WAIT_SECONDS)
    assert len(service.refused) == refused


@pytest.mark.parametrize(("request_rows", "refused"), [(3, 1), (1, 2)])
def test_nor_is_a_task(pauses: list[float], request_rows: int, refused: int) -> None:
    async def main(address: str) -> None:
        client = AsyncClient(address, patient=True, timeout=math.inf, request_rows=request_rows)
        waiting = asyncio.create_task(client.predict("toy", ROWS))
        while len(pauses) < refused:
            await asyncio.sleep(0.01)
        await client.close()
        with pytest.raises(ClosedError):
            await waiting

    service = FullService()
    with serving(service) as address:
        asyncio.run(asyncio.wait_for(main(address), WAIT_SECONDS))
    assert len(service.refused) == refused
