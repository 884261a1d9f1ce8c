"""How calls and clients of both kinds end: deadlines, closing, cancellation, failures."""

from __future__ import annotations

import asyncio
import math
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
import numpy as np
import pytest

from dropserve_client import (
    AsyncClient,
    CallCancelledError,
    Client,
    ClosedError,
    DeadlineExceededError,
    DropserveError,
    InputError,
    Prediction,
)
from support.fake_server import WAIT_SECONDS, FakeService, answer_mean, serving

ROWS = np.arange(30, dtype=np.float32).reshape(10, 3)


def test_the_deadline_is_the_clients_unless_a_call_has_its_own(
    connect: Callable[..., Any], address: str, service: FakeService
) -> None:
    service.gate.clear()
    client = connect(address, timeout=0.2)
    with pytest.raises(DeadlineExceededError, match=rf"no answer from {address} within 0\.2 s"):
        client.predict("toy", ROWS)
    with pytest.raises(DeadlineExceededError, match=r"within 0\.1 s"):
        client.predict("toy", ROWS, timeout=0.1)
    with pytest.raises(DeadlineExceededError, match=r"within 0\.1 s"):
        next(client.predict_many("toy", [ROWS], timeout=0.1))


def test_every_call_has_a_deadline(connect: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    remaining: list[float | None] = []

    class Watched(FakeService):
        def Predict(self, request: Any, context: Any) -> Any:
            remaining.append(context.time_remaining())
            return super().Predict(request, context)

        def ListModels(self, request: Any, context: Any) -> Any:
            remaining.append(context.time_remaining())
            return super().ListModels(request, context)

    with serving(Watched()) as address:
        client = connect(address)
        client.predict("toy", ROWS)
        client.predict("toy", ROWS, timeout=None)
        client.list_models()
        client.predict("toy", ROWS, timeout=math.inf)
    *limited, unlimited = remaining
    assert all(seconds is not None and 25 < seconds < 31 for seconds in limited)
    # gRPC writes "none" as a deadline some centuries away.
    assert unlimited is None or unlimited > 10**8


def test_the_deadline_holds_for_all_parts_together(
    connect: Callable[..., Any], address: str, service: FakeService
) -> None:
    class Slow(FakeService):
        def Predict(self, request: Any, context: Any) -> Any:
            threading.Event().wait(0.1)
            return super().Predict(request, context)

    slow = Slow()
    with serving(slow) as slow_address, pytest.raises(DeadlineExceededError):
        connect(slow_address, request_rows=1).predict("toy", ROWS, timeout=0.35)
    assert len(slow.predict_calls) < len(ROWS)


@pytest.mark.parametrize("timeout", [0, -1, math.nan, "3", True])
def test_a_timeout_is_a_positive_number(connect: Callable[..., Any], address: str, timeout: Any) -> None:
    with pytest.raises(InputError, match="timeout"):
        connect(address).predict("toy", ROWS, timeout=timeout)
    with pytest.raises(InputError, match="timeout"):
        connect(address, timeout=timeout)


def test_none_is_no_way_to_say_no_timeout(connect: Callable[..., Any], address: str) -> None:
    with pytest.raises(InputError, match=r"math\.inf for none"):
        connect(address, timeout=None)


@pytest.mark.parametrize("target", ["localhost", "", None, "http://localhost:8001"])
def test_a_target_names_its_port(connect: Callable[..., Any], target: Any) -> None:
    with pytest.raises(InputError, match=r"must be HOST:PORT, e\.g\. localhost:8001, not"):
        connect(target)


def test_a_closed_client_says_so(client: Any) -> None:
    client.predict("toy", ROWS)
    client.close()
    client.close()
    calls: list[Callable[[], Any]] = [
        lambda: client.predict("toy", ROWS),
        client.list_models,
        client.is_ready,
    ]
    for call in calls:
        with pytest.raises(ClosedError):
            call()


def test_a_client_serves_many_threads(address: str) -> None:
    with Client(address) as client, ThreadPoolExecutor(8) as pool:
        predictions = list(pool.map(lambda shift: client.predict("toy", ROWS + shift), range(40)))
    for shift, prediction in enumerate(predictions):
        np.testing.assert_array_equal(prediction.mean, answer_mean(ROWS + shift))


def test_a_client_serves_many_tasks(address: str) -> None:
    async def main() -> list[Prediction]:
        async with AsyncClient(address) as client:
            return await asyncio.gather(*(client.predict("toy", ROWS + shift) for shift in range(40)))

    for shift, prediction in enumerate(asyncio.run(main())):
        np.testing.assert_array_equal(prediction.mean, answer_mean(ROWS + shift))


def test_closing_ends_the_calls_of_other_threads(address: str, service: FakeService) -> None:
    service.gate.clear()
    client = Client(address)
    with ThreadPoolExecutor(1) as pool:
        call = pool.submit(client.predict, "toy", ROWS)
        while not service.calls:
            threading.Event().wait(0.01)
        client.close()
        with pytest.raises(CallCancelledError):
            call.result(WAIT_SECONDS)


def test_closing_ends_the_calls_of_other_tasks(address: str, service: FakeService) -> None:
    async def main() -> None:
        service.gate.clear()
        client = AsyncClient(address)
        call = asyncio.create_task(client.predict("toy", ROWS))
        while not service.calls:
            await asyncio.sleep(0.01)
        await client.close()
        with pytest.raises(CallCancelledError):
            await call

    asyncio.run(asyncio.wait_for(main(), WAIT_SECONDS))


def test_a_cancelled_task_is_cancelled_and_its_call_with_it(address: str, service: FakeService) -> None:
    left = threading.Event()

    class Watched(FakeService):
        def Predict(self, request: Any, context: Any) -> Any:
            context.add_callback(left.set)
            return super().Predict(request, context)

    async def main(target: str, watched: FakeService) -> None:
        async with AsyncClient(target) as client:
            call = asyncio.create_task(client.predict("toy", ROWS))
            while not watched.calls:
                await asyncio.sleep(0.01)
            call.cancel()
            with pytest.raises(asyncio.CancelledError):
                await call

    watched = Watched()
    watched.gate.clear()
    with serving(watched) as target:
        asyncio.run(asyncio.wait_for(main(target, watched), WAIT_SECONDS))
        assert left.wait(WAIT_SECONDS)


def test_no_error_of_grpc_escapes(client: Any, service: FakeService) -> None:
    service.models = []
    calls: list[Callable[[], Any]] = [lambda: client.predict("toy", ROWS), lambda: client.get_model("toy")]
    for call in calls:
        with pytest.raises(DropserveError) as caught:
            call()
        assert not isinstance(caught.value, grpc.RpcError)
