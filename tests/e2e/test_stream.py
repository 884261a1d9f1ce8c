"""PredictStream: answers with their ids, failures that leave the stream alone, an orderly end."""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterator

import grpc
import numpy as np
import pytest

from dropserve.v1.prediction_pb2 import MonteCarlo, PredictRequest
from support.example_repository import NETWORKS, expected, rows_for
from support.prediction_client import Asker, array_of, request

TIMEOUT = 60.0


def test_every_answer_belongs_to_its_request(ask: Asker) -> None:
    questions = {
        f"{name}-{number}": request(
            name,
            rows_for(name, 1 + number, seed=number),
            MonteCarlo(passes=20, seed=number) if number % 3 == 0 and name != "plain" else None,
            request_id=f"{name}-{number}",
        )
        for number in range(40)
        for name in NETWORKS
    }
    answers = list(ask.stub.PredictStream(iter(questions.values()), timeout=TIMEOUT))
    assert len(answers) == len(questions)
    assert {answer.request_id for answer in answers} == set(questions)
    for answer in answers:
        assert not answer.HasField("error")
        name, _, number = answer.request_id.partition("-")
        assert answer.model == name
        rows = rows_for(name, 1 + int(number), seed=int(number))
        mean = array_of(answer.mean)
        if answer.passes == 0:
            np.testing.assert_allclose(mean, expected(NETWORKS[name], rows), rtol=1e-4, atol=1e-5)
        else:
            alone = ask.stub.Predict(questions[answer.request_id], timeout=TIMEOUT)
            assert answer.mean == alone.mean
            assert answer.variance == alone.variance


def test_a_failure_is_told_in_its_place_and_the_stream_goes_on(ask: Asker) -> None:
    questions = [
        request("targets", rows_for("targets", 1), request_id="good"),
        request("targets", rows_for("binary", 1), request_id="wide"),
        request("nothing", rows_for("targets", 1), request_id="unknown"),
        request("wave", rows_for("targets", 1), MonteCarlo(), request_id="unable"),
        request("targets", rows_for("targets", 20_000), request_id="long"),
        request("targets", rows_for("targets", 1), MonteCarlo(quantiles=[2]), request_id="beyond"),
        request("targets", rows_for("targets", 1), MonteCarlo(), request_id="good too"),
    ]
    answers = {
        answer.request_id: answer for answer in ask.stub.PredictStream(iter(questions), timeout=TIMEOUT)
    }
    errors = {
        name: (grpc_code(answer.error.code), answer.error.field)
        for name, answer in answers.items()
        if answer.HasField("error")
    }
    assert errors == {
        "wide": ("INVALID_ARGUMENT", "inputs"),
        "unknown": ("NOT_FOUND", ""),
        "unable": ("FAILED_PRECONDITION", ""),
        "long": ("RESOURCE_EXHAUSTED", ""),
        "beyond": ("INVALID_ARGUMENT", "monte_carlo.quantiles"),
    }
    assert "takes 4 features" in answers["wide"].error.message
    assert {field.name for field, _ in answers["wide"].ListFields()} == {"request_id", "error"}
    assert answers["good"].mean.shape == [1, 2]
    assert answers["good too"].passes == 50


def test_answers_come_while_the_stream_is_open_and_out_of_order(ask: Asker) -> None:
    """Scenario: a slow question, then a quick one, whose answer is there before anything else is sent."""
    outgoing: queue.SimpleQueue[PredictRequest | None] = queue.SimpleQueue()

    def questions() -> Iterator[PredictRequest]:
        while (question := outgoing.get(timeout=TIMEOUT)) is not None:
            yield question

    ask.predict("classes", rows_for("classes", 1), MonteCarlo())  # so that torch is there
    answers = ask.stub.PredictStream(questions(), timeout=TIMEOUT)
    outgoing.put(request("classes", rows_for("classes", 4000), MonteCarlo(passes=500), request_id="slow"))
    outgoing.put(request("targets", rows_for("targets", 1), request_id="quick"))
    assert next(answers).request_id == "quick"
    outgoing.put(request("targets", rows_for("targets", 1), request_id="quick again"))
    outgoing.put(None)
    assert [answer.request_id for answer in answers][-1] == "slow"


def test_an_empty_stream_ends_with_ok(ask: Asker) -> None:
    call = ask.stub.PredictStream(iter(()), timeout=TIMEOUT)
    assert list(call) == []
    assert call.code() is grpc.StatusCode.OK


def test_a_caller_who_leaves_is_forgotten(ask: Asker) -> None:
    holding = threading.Event()

    def questions() -> Iterator[PredictRequest]:
        yield request("targets", rows_for("targets", 1))
        holding.wait(TIMEOUT)

    call = ask.stub.PredictStream(questions(), timeout=TIMEOUT)
    next(call)
    call.cancel()
    holding.set()
    with pytest.raises(grpc.RpcError):
        next(call)
    assert ask.predict("targets", rows_for("targets", 1)).mean.shape == [1, 2]


def grpc_code(number: int) -> str:
    return next(code.name for code in grpc.StatusCode if code.value[0] == number)
