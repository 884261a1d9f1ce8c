"""Which requests leave a line in the log, and what is in it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Any

import grpc
import numpy as np
import pytest

from dropserve_models.prediction import MonteCarloOptions, Prediction
from dropserve_server.errors import ModelNotFound, QueueFull
from dropserve_server.grpc.calls import Calls
from dropserve_server.grpc.outcome import Outcome
from dropserve_server.grpc.request_log import RequestLog
from dropserve_server.logs import LOGGER
from dropserve_server.metrics import DETERMINISTIC, MONTE_CARLO, Metrics
from dropserve_server.predictor import PredictionJob
from dropserve_server.served import ServedModel
from support.fake_model import FakeModel

NOT_FOUND, EXHAUSTED = grpc.StatusCode.NOT_FOUND, grpc.StatusCode.RESOURCE_EXHAUSTED


@pytest.fixture(autouse=True)
def every_level(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, LOGGER)


def failure(finished: float = 0.0, code: grpc.StatusCode = NOT_FOUND) -> Outcome:
    error = ModelNotFound("no such model") if code is NOT_FOUND else QueueFull("full")
    return Outcome(code, DETERMINISTIC, "", finished - 1, finished, None, None, error)


def fields(record: logging.LogRecord) -> dict[str, Any]:
    standard = vars(logging.makeLogRecord({})).keys() | {"message", "asctime"}
    return {name: value for name, value in vars(record).items() if name not in standard}


def in_a_loop(work: Callable[[], Awaitable[None]]) -> None:
    async def bounded() -> None:
        async with asyncio.timeout(30):
            await work()

    asyncio.run(bounded())


def test_an_answered_request_tells_what_it_took(caplog: pytest.LogCaptureFixture) -> None:
    async def life() -> None:
        served = ServedModel(FakeModel(), Metrics().of_model("fake", "1"))
        job = PredictionJob(served, np.ones((2, 3), np.float32), MonteCarloOptions(), 0.0)
        job.queued, job.begun, job.finished = 1.0, 1.25, 3.25
        job.result = Prediction(np.zeros((2, 2), np.float32), passes=40)
        outcome = Outcome(grpc.StatusCode.OK, MONTE_CARLO, "mine", 0.5, 4.0, served, job)
        RequestLog(1.0).answered(outcome, {"trace_id": "abc"})

    in_a_loop(life)
    (record,) = caplog.records
    assert (record.getMessage(), record.levelno) == ("request answered", logging.INFO)
    assert fields(record) == {
        "code": "OK",
        "model": "fake",
        "version": "1",
        "mode": "monte_carlo",
        "request_id": "mine",
        "seconds": 3.5,
        "rows": 2,
        "passes": 40,
        "queue_seconds": 0.25,
        "compute_seconds": 2.0,
        "trace_id": "abc",
    }


@pytest.mark.parametrize(("share", "least", "most"), [(0.0, 0, 0), (0.25, 400, 600), (1.0, 2000, 2000)])
def test_of_the_answered_requests_a_share_is_logged(
    share: float, least: int, most: int, caplog: pytest.LogCaptureFixture
) -> None:
    async def life() -> None:
        metrics = Metrics()
        served = ServedModel(FakeModel(), metrics.of_model("fake", "1"))
        calls = Calls(metrics, RequestLog(share))
        for _ in range(2000):
            with calls.begin(DETERMINISTIC, "", None) as call:
                call.served = served

    in_a_loop(life)
    assert least <= len(caplog.records) <= most  # 500 +- 5 standard deviations of its sampling


def test_a_failed_request_tells_why(caplog: pytest.LogCaptureFixture) -> None:
    RequestLog().failed(failure(), {"trace_id": "abc"})
    (record,) = caplog.records
    assert (record.getMessage(), record.levelno) == ("request failed", logging.INFO)
    assert fields(record) == {
        "code": "NOT_FOUND",
        "model": "unknown",
        "version": "unknown",
        "mode": "deterministic",
        "seconds": 1.0,
        "reason": "no such model",
        "trace_id": "abc",
    }


def test_of_a_storm_of_failures_a_few_are_logged_and_the_others_counted(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def life() -> None:
        log = RequestLog(failures_per_second=3)
        for number in range(100):
            log.failed(failure(1000 + number * 0.001, EXHAUSTED), {})
        log.failed(failure(1000.5), {})  # another code: not drowned
        while len(caplog.records) < 5:
            await asyncio.sleep(0.01)
        log.failed(failure(1001.1, EXHAUSTED), {})  # the next second

    in_a_loop(life)
    found = [(record.getMessage(), fields(record)["code"]) for record in caplog.records]
    storm = [("request failed", "RESOURCE_EXHAUSTED")]
    assert found == [
        *storm * 3,
        ("request failed", "NOT_FOUND"),
        ("more requests failed", "RESOURCE_EXHAUSTED"),
        *storm,
    ]
    assert fields(caplog.records[4]) == {"code": "RESOURCE_EXHAUSTED", "count": 97}
    assert caplog.records[4].levelno == logging.WARNING


def test_none_goes_uncounted_when_the_server_stops(caplog: pytest.LogCaptureFixture) -> None:
    async def life() -> None:
        log = RequestLog(failures_per_second=0)
        for _ in range(7):
            log.failed(failure(), {})
        log.tell_suppressed()
        log.tell_suppressed()

    in_a_loop(life)
    (record,) = caplog.records
    assert fields(record) == {"code": "NOT_FOUND", "count": 7}
