"""What a call's metadata announce, and what is refused before its message has come."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pytest

from dropserve.v1.prediction_pb2 import MonteCarlo, PredictRequest, PredictResponse
from dropserve_models.prediction import MonteCarloOptions
from dropserve_server.grpc.announcement import Announcement, read_announcement
from dropserve_server.grpc.authentication import Authentication
from dropserve_server.grpc.request_log import RequestLog
from dropserve_server.metrics import Metrics
from dropserve_server.reloading import Reloaded
from dropserve_server.settings import Settings
from dropserve_server.tokens import add_token, read_tokens
from support.jobs import some_rows
from support.prediction_client import refusal_of, request
from support.service import SECONDS, Service, run

PREDICT = "/dropserve.v1.PredictionService/Predict"
INFER = "/inference.GRPCInferenceService/ModelInfer"
QUEUE_ROWS, TAKEN = 1000, 900  # of the harness; of the request that the queue holds in these tests
TOO_LARGE = Settings(repository=Path()).max_message_bytes + 1
SHORT = 0.3  # seconds: that nothing happens is seen by then

Told = tuple[tuple[str, str], ...]


def told(model: str = "fake", rows: object = 200, **more: object) -> Told:
    entries = {"model": model, "rows": rows} | more
    return tuple((f"dropserve-{name}", str(value)) for name, value in entries.items())


@pytest.mark.parametrize(
    ("metadata", "announcement"),
    [
        (told(), Announcement("fake", "", 200, None)),
        (told(passes=100), Announcement("fake", "", 200, MonteCarloOptions(passes=100))),
        (told(passes=0, version=3), Announcement("fake", "3", 200, MonteCarloOptions(passes=9))),
        ((*told(), ("user-agent", "x"), ("dropserve-other", "y")), Announcement("fake", "", 200, None)),
        (told(rows="0"), Announcement("fake", "", 0, None)),
        ((), None),
        ((("dropserve-model", "fake"),), None),
        ((("dropserve-rows", "3"),), None),
        *((told(rows=rows), None) for rows in ("", "-1", "1.5", "many", "9" * 11, "²", " 3")),
        *((told(passes=passes), None) for passes in ("", "-1", "1e3")),
    ],
)
def test_an_announcement_is_understood_or_there_is_none(
    metadata: Told, announcement: Announcement | None
) -> None:
    assert read_announcement(metadata, 9) == announcement


def asking(service: Service, method: str = PREDICT) -> Any:
    """Calls a unary method whose message the caller sends when they like."""
    return service.channel.stream_unary(method)


async def silence() -> AsyncIterator[bytes]:
    """A message that never comes."""
    await asyncio.sleep(SECONDS)
    yield b""


async def first(message: bytes) -> AsyncIterator[bytes]:
    yield message


async def refusal(call: Awaitable[object]) -> grpc.aio.AioRpcError:
    with pytest.raises(grpc.aio.AioRpcError) as error:
        await call
    return error.value


def scenario_with_a_full_queue(
    scenario: Callable[[Service], Awaitable[None]], monte_carlo: MonteCarlo | None = None
) -> Callable[[Service], Awaitable[None]]:
    """Play it while one request is computed that leaves room for 100 rows."""

    async def play(service: Service) -> None:
        service.model.gate.clear()
        occupant = asyncio.ensure_future(
            service.stub.Predict(request("fake", some_rows(TAKEN), monte_carlo), timeout=SECONDS)
        )
        await asyncio.to_thread(service.model.entered.acquire)
        await scenario(service)
        service.model.gate.set()
        await occupant

    return play


@pytest.mark.parametrize("method", [PREDICT, INFER])
@pytest.mark.parametrize("passes", [None, 0, 20])
def test_there_is_no_room_for_it_and_its_message_is_not_waited_for(
    method: str, passes: int | None, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    announced = told() if passes is None else told(passes=passes)

    async def scenario(service: Service) -> None:
        ask = asking(service, method)
        error = await refusal(ask(silence(), metadata=announced, timeout=SECONDS))
        known = refusal_of(error)
        assert known.code is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert "900 rows are in flight" in known.message
        assert "200 more don't fit" in known.message
        assert known.retry_seconds is not None
        read = await refusal(service.stub.Predict(request("fake", some_rows(200), monte_carlo)))
        assert refusal_of(read) == known, "as a request is that was read"
        # There is room for fewer rows, and for the other mode's: their messages are waited for.
        fewer = told(rows=100) if passes is None else told(rows=100, passes=passes)
        for other in (fewer, others):
            late = await refusal(ask(silence(), metadata=other, timeout=SHORT))
            assert late.code() is grpc.StatusCode.DEADLINE_EXCEEDED
        sample = service.metrics.registry.get_sample_value
        assert sample("dropserve_rejected_total", {"model": "fake", "reason": "queue_full"}) == 2
        mode = "deterministic" if passes is None else "monte_carlo"
        labels = {"model": "fake", "version": "1", "mode": mode, "code": "RESOURCE_EXHAUSTED"}
        assert sample("dropserve_requests_total", labels) == 2

    monte_carlo = None if passes is None else MonteCarlo(passes=passes)
    others = told(passes=5) if passes is None else told()
    run(scenario_with_a_full_queue(scenario, monte_carlo), tmp_path)
    refused = [record for record in caplog.records if record.getMessage() == "request failed"]
    assert [vars(record)["code"] for record in refused] == ["RESOURCE_EXHAUSTED"] * 2


def test_without_an_announcement_the_message_is_waited_for(tmp_path: Path) -> None:
    async def scenario(service: Service) -> None:
        ask = asking(service)
        for metadata in ((), told(rows="many"), told(model="other"), told(version=2)):
            late = await refusal(ask(silence(), metadata=metadata, timeout=SHORT))
            assert late.code() is grpc.StatusCode.DEADLINE_EXCEEDED, metadata

    run(scenario_with_a_full_queue(scenario), tmp_path)


def test_who_announces_less_than_they_send_is_refused_once_it_is_read(tmp_path: Path) -> None:
    async def scenario(service: Service) -> None:
        error = await refusal(service.stub.Predict(request("fake", some_rows(200)), metadata=told(rows=1)))
        assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        other = await refusal(service.stub.Predict(request("nobody", some_rows(2)), metadata=told(rows=1)))
        assert other.code() is grpc.StatusCode.NOT_FOUND
        assert len(service.model.calls) == 1, "the one that is computed"

    run(scenario_with_a_full_queue(scenario), tmp_path)


@pytest.mark.parametrize(
    ("rows", "passes", "sent", "code", "reason"),
    [
        (9_999_999_999, 9_999_999_999, 1001, grpc.StatusCode.RESOURCE_EXHAUSTED, "over the limit of 1000"),
        (200, 2000, 200, grpc.StatusCode.INVALID_ARGUMENT, "at most 1000"),
        (200, 20, 200, grpc.StatusCode.FAILED_PRECONDITION, "has no dropout"),
    ],
)
def test_what_is_refused_for_good_is_not_told_to_come_again(
    rows: int, passes: int, sent: int, code: grpc.StatusCode, reason: str, tmp_path: Path
) -> None:
    async def scenario(service: Service) -> None:
        if code is grpc.StatusCode.FAILED_PRECONDITION:
            service.model.monte_carlo_unavailable = reason
        message = request("fake", some_rows(sent), MonteCarlo(passes=min(passes, 2000)))
        error = await refusal(service.stub.Predict(message, metadata=told(rows=rows, passes=passes)))
        known = refusal_of(error)
        assert known.code is code
        assert reason in known.message
        assert known.retry_seconds is None

    run(scenario_with_a_full_queue(scenario, MonteCarlo(passes=20)), tmp_path)


def test_an_announcement_changes_no_answer(tmp_path: Path) -> None:
    async def scenario(service: Service) -> None:
        asked = [
            asyncio.ensure_future(
                service.stub.Predict(request("fake", some_rows(3), request_id=f"r{number}"), metadata=said)
            )
            # Small or huge, of this model or none: there is room.
            for number, said in enumerate([told(rows=3), told(rows=1), told(model="other", rows=10**9)])
        ]
        while service.metrics.inflight < 4:
            await asyncio.sleep(0.001)
        service.model.gate.set()
        for number, answer in enumerate(await asyncio.gather(*asked)):
            assert answer.request_id == f"r{number}"
            assert answer.mean.shape == [3, 2]

    run(scenario_with_a_full_queue(scenario), tmp_path)


def test_an_idle_server_reads_whatever_is_announced(tmp_path: Path) -> None:
    async def scenario(service: Service) -> None:
        answer = await service.stub.Predict(request("fake", some_rows(3)), metadata=told(rows=10**9))
        assert answer.mean.shape == [3, 2]

    run(scenario, tmp_path)


def test_a_deadline_that_cannot_be_met_is_refused_unread(tmp_path: Path) -> None:
    async def scenario(service: Service) -> None:
        costs = service.repository.find("fake").costs.deterministic
        for power in range(12):
            costs.record(2**power, 2**power)  # a second a row
        ask = asking(service)
        error = await refusal(ask(silence(), metadata=told(rows=90), timeout=10))
        assert error.code() is grpc.StatusCode.DEADLINE_EXCEEDED
        assert "most of it in the queue" in str(error.details()), "the server's word, not gRPC's"

    run(scenario_with_a_full_queue(scenario), tmp_path)


@pytest.mark.parametrize("message", [None, b"\xff" * 9, b"\0" * TOO_LARGE])
def test_no_message_an_undecodable_and_a_too_large_one_end_as_they_do_unannounced(
    message: bytes | None, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async def none() -> AsyncIterator[bytes]:
        return
        yield

    async def scenario(service: Service) -> None:
        sent = none() if message is None else first(message)
        ask = asking(service)
        error = await refusal(ask(sent, metadata=told(rows=1), timeout=SECONDS))
        too_large = message is not None and len(message) == TOO_LARGE
        assert error.code() is (
            grpc.StatusCode.RESOURCE_EXHAUSTED if too_large else grpc.StatusCode.INVALID_ARGUMENT
        )

    run(scenario_with_a_full_queue(scenario), tmp_path)
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]


def test_callers_that_leave_before_their_message_has_come_leave_nothing_behind(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async def scenario(service: Service) -> None:
        ask = asking(service)
        for _ in range(20):
            call = asyncio.ensure_future(ask(silence(), metadata=told(rows=1), timeout=SECONDS))
            await asyncio.sleep(0.005)
            call.cancel()
        while sum("HandleExceptions" in task.get_name() for task in asyncio.all_tasks()) > 1:
            await asyncio.sleep(0.001)  # the one that is computed stays

    run(scenario_with_a_full_queue(scenario), tmp_path)
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]


def test_tokens_are_asked_for_first(tmp_path: Path) -> None:
    path = tmp_path / "tokens"
    token = add_token(path, "shop", "predict")
    tokens = Reloaded("tokens", [path], lambda: read_tokens(path))

    async def scenario(service: Service) -> None:
        bearer = (("authorization", f"Bearer {token}"),)
        predict = service.channel.unary_unary(
            PREDICT, PredictRequest.SerializeToString, PredictResponse.FromString
        )
        service.model.gate.clear()
        occupant = asyncio.ensure_future(predict(request("fake", some_rows(TAKEN)), metadata=bearer))
        await asyncio.to_thread(service.model.entered.acquire)
        ask = asking(service)
        unknown = await refusal(ask(silence(), metadata=told(), timeout=SECONDS))
        assert unknown.code() is grpc.StatusCode.UNAUTHENTICATED
        known = await refusal(ask(silence(), metadata=(*told(), *bearer), timeout=SECONDS))
        assert known.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        service.model.gate.set()
        await occupant

    authentication = Authentication(tokens, Metrics(), RequestLog())
    run(scenario, tmp_path / "repository", interceptors=[authentication])
