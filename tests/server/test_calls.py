"""What is recorded of every request, and under which labels."""

from __future__ import annotations

import asyncio
import logging

import pytest

from dropserve_models.errors import InputError, MemoryLimitError
from dropserve_server.errors import DeadlineTooShort, LimitExceeded, ModelNotFound, QueueFull, Unavailable
from dropserve_server.grpc.calls import Calls
from dropserve_server.metrics import DETERMINISTIC, MONTE_CARLO, Metrics, Mode
from dropserve_server.served import ServedModel
from support.fake_model import FakeModel


def answer(
    metrics: Metrics,
    error: BaseException | None = None,
    *,
    known: bool = True,
    mode: Mode = DETERMINISTIC,
    seconds: float | None = None,
) -> None:
    async def life() -> None:
        with Calls(metrics).begin(mode, "request-7", seconds) as call:
            if known:
                call.served = ServedModel(FakeModel(), metrics.of_model("fake", "1"))
            if error is not None:
                raise error

    asyncio.run(life())


def requests(metrics: Metrics) -> dict[tuple[str, str, str, str], float]:
    return {
        (s.labels["model"], s.labels["version"], s.labels["mode"], s.labels["code"]): s.value
        for family in metrics.registry.collect()
        for s in family.samples
        if s.name == "dropserve_requests_total" and s.value
    }


@pytest.mark.parametrize("mode", [DETERMINISTIC, MONTE_CARLO])
def test_an_answered_request_is_counted_and_timed(mode: Mode) -> None:
    metrics = Metrics()
    answer(metrics, mode=mode)
    assert requests(metrics) == {("fake", "1", mode, "OK"): 1}
    labels = {"model": "fake", "mode": mode}
    assert metrics.registry.get_sample_value("dropserve_request_duration_seconds_count", labels) == 1
    assert metrics.inflight == 0


@pytest.mark.parametrize(
    ("error", "code", "level"),
    [
        (InputError("passes", "why"), "INVALID_ARGUMENT", logging.INFO),
        (QueueFull("why"), "RESOURCE_EXHAUSTED", logging.WARNING),
        (Unavailable("why"), "UNAVAILABLE", logging.WARNING),
        (asyncio.CancelledError("why"), "CANCELLED", logging.INFO),
        (ZeroDivisionError("why"), "INTERNAL", logging.ERROR),
    ],
)
def test_a_failure_is_counted_and_logged_in_one_line(
    error: BaseException, code: str, level: int, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    metrics = Metrics()
    with pytest.raises(type(error)):
        answer(metrics, error)
    assert requests(metrics) == {("fake", "1", "deterministic", code): 1}
    (record,) = caplog.records
    assert record.levelno == level
    fields = vars(record)
    assert (fields["code"], fields["request_id"], fields["reason"]) == (code, "request-7", "why")
    assert bool(record.exc_info) == (code == "INTERNAL")


def test_an_id_of_any_length_does_not_fill_the_log(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)

    async def life() -> None:
        with Calls(Metrics()).begin(DETERMINISTIC, "x" * 10**6, None):
            raise InputError("request_id", "too long")

    with pytest.raises(InputError):
        asyncio.run(life())
    (record,) = caplog.records
    assert vars(record)["request_id"] == "x" * 256


def test_unknown_models_share_one_label() -> None:
    metrics = Metrics()
    for name in ("a", "b", "c"):
        with pytest.raises(ModelNotFound):
            answer(metrics, ModelNotFound(name), known=False)
    assert requests(metrics) == {("unknown", "unknown", "deterministic", "NOT_FOUND"): 3}


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (QueueFull("why"), "queue_full"),
        (DeadlineTooShort("why"), "deadline"),
        (LimitExceeded("rows", "why"), "rows"),
        (MemoryLimitError("why"), "memory"),
    ],
)
def test_refusals_for_lack_of_room_are_counted_by_reason(error: Exception, reason: str) -> None:
    metrics = Metrics()
    with pytest.raises(type(error)):
        answer(metrics, error)
    labels = {"model": "fake", "reason": reason}
    assert metrics.registry.get_sample_value("dropserve_rejected_total", labels) == 1


def test_a_caller_that_left_at_its_deadline_is_counted_as_such() -> None:
    metrics = Metrics()
    for seconds in (0.0, 60.0):
        with pytest.raises(asyncio.CancelledError):
            answer(metrics, asyncio.CancelledError(), seconds=seconds)
    assert requests(metrics) == {
        ("fake", "1", "deterministic", "DEADLINE_EXCEEDED"): 1,
        ("fake", "1", "deterministic", "CANCELLED"): 1,
    }


def test_idle_means_that_nothing_is_being_answered() -> None:
    async def life() -> None:
        calls = Calls(Metrics())
        await asyncio.wait_for(calls.idle(), 10)
        with calls.begin(DETERMINISTIC, "", None):
            with calls.begin(MONTE_CARLO, "", None):
                assert calls.metrics.inflight == 2
            idle = asyncio.ensure_future(calls.idle())
            await asyncio.sleep(0)
            assert not idle.done()
        await asyncio.wait_for(idle, 10)

    asyncio.run(life())
