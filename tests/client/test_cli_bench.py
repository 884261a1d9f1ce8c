"""`dropserve bench` against a real server with an imaginary model."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest

from dropserve.v1 import model_pb2, prediction_pb2
from dropserve_client.cli.bench import is_here, random_rows
from dropserve_client.types import Column, ModelInfo
from support.fake_server import Failure, FakeService, model, serving

Run = Callable[..., tuple[int, str, str]]
BRIEFLY = ("--seconds", "0.3", "--concurrency", "3")


def counts(line: str) -> list[float]:
    return [float(number.replace(",", "")) for number in line.split()]


def test_rates_and_percentiles_are_printed(run: Run, service: FakeService) -> None:
    status, out, err = run("bench", "toy", *BRIEFLY, "--rows", "4", "--passes", "9", "--seed", "5")
    assert (status, err) == (0, "")
    head, names, figures = out.splitlines()
    assert re.fullmatch(r"toy version 1, 9 passes, rows a call: 4, callers: 3, 0\.[3-9] s", head)
    assert re.split(r"  +", names.strip()) == [
        "answers", "a second", "rows a second", "p50 ms", "p90 ms", "p99 ms", "max ms",
    ]  # fmt: skip
    answers, rate, rows, *times = counts(figures)
    calls = service.predict_calls
    assert answers == len(calls) - 1  # the first is not measured
    assert rows == pytest.approx(4 * rate, abs=0.3)
    assert answers / rate == pytest.approx(0.3, abs=0.3)
    assert times == sorted(times)
    assert 0 < times[0] < 300
    for call in calls:
        assert list(call.inputs.shape) == [4, 3]
        assert (call.monte_carlo.passes, call.monte_carlo.seed) == (9, 5)
    assert len({call.inputs.raw for call in calls}) > 1


def test_the_rows_of_a_file_are_asked_in_turns(run: Run, service: FakeService, table: Path) -> None:
    assert run("bench", "toy", *BRIEFLY, "--input", table)[0] == 0
    asked = [tuple(np.frombuffer(call.inputs.raw, "<f4").tolist()) for call in service.predict_calls]
    assert set(asked) == {(1, 2, 3), (4, 5, 6)}
    assert abs(asked.count((1, 2, 3)) - asked.count((4, 5, 6))) <= 1
    status, out, err = run("bench", "toy", "--input", table, "--rows", "3")
    assert (status, out) == (2, "")
    assert "the file has 2 rows, and a call is to have 3" in err


class Busy(FakeService):
    """Fails the third, fourth and fifth call."""

    def Predict(self, request: prediction_pb2.PredictRequest, context: Any) -> prediction_pb2.PredictResponse:
        if len(self.predict_calls) == 2 and not self.failures:
            full = Failure(grpc.StatusCode.RESOURCE_EXHAUSTED, "full")
            self.failures.extend([full, full, Failure(grpc.StatusCode.INTERNAL, "a bug")])
        return super().Predict(request, context)


def test_what_is_refused_or_fails_is_counted(run: Run, service: FakeService) -> None:
    service.failures.append(Failure(grpc.StatusCode.INVALID_ARGUMENT, "not so"))
    assert run("bench", "toy", *BRIEFLY) == (2, "", "dropserve bench: not so\n")
    with serving(Busy()) as target:
        status, out, err = run("bench", "toy", "--seconds", "0.5", "--concurrency", "1", server=target)
    assert (status, err) == (1, "")
    refused, failed = out.splitlines()[3:]
    assert refused == "refused: 2 RESOURCE_EXHAUSTED"
    assert failed.startswith("failed: 1 INTERNAL; the first: ")
    assert failed.endswith("a bug")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--rows", "0"], "--rows is 0; it must be from 1 to 16384"),
        (["--concurrency", "5000"], "--concurrency is 5000; it must be from 1 to 1024"),
        (["--seconds", "nan"], "--seconds is nan; it must be from 0.1 to 3600"),
        (["--seed", "1"], "--seed needs --passes"),
    ],
)
def test_wrong_options_are_told_in_one_line(run: Run, options: list[str], message: str) -> None:
    status, out, err = run("bench", "toy", *options)
    assert (status, out) == (2, "")
    assert message in err
    assert err.count("\n") == 1


def test_other_machines_are_left_alone_unless_they_are_meant(run: Run) -> None:
    elsewhere = "192.0.2.1:8001"  # nobody's, by RFC 5737
    status, out, err = run("bench", "toy", server=elsewhere)
    assert (status, out) == (2, "")
    assert f"{elsewhere} is not this machine" in err
    assert run("bench", "toy", "--remote", "--timeout", "0.1", server=elsewhere)[0] == 1
    here = [
        "localhost:1",
        "127.0.0.1:8001",
        "127.3.2.1:1",
        "[::1]:8001",
        "unix:/x",
        "unix-abstract:x",
        "dns:///localhost:1",
        "dns:localhost:8001",
        "ipv4:127.0.0.1:1",
        "ipv4:127.0.0.1:1,127.0.0.2:1",
        "ipv6:[::1]:8001",
        "localhost",
    ]
    assert all(map(is_here, here))
    there = [
        "localhost.example:1",
        "10.0.0.1:1",
        "[2001:db8::1]:1",
        "dns:///server:1",
        "dns:server:1",
        "ipv4:127.0.0.1:1,10.0.0.1:1",
        "0.0.0.0:1",
        "server",
    ]
    assert not any(map(is_here, there))


def test_random_rows_are_such_as_the_model_takes(run: Run, service: FakeService) -> None:
    info = ModelInfo(
        "m", "1", True, "regression", ("a", "b"), ("y",), (), None, False, "CPUExecutionProvider",
        (Column(), Column("category", ("x", "y", "z"))),
    )  # fmt: skip
    rows = random_rows(info, 500)
    assert rows.dtype == np.float32
    assert abs(rows[:, 0].mean()) < 0.3
    assert set(rows[:, 1].tolist()) == {0, 1, 2}
    service.models = [
        model(
            columns=[
                model_pb2.Column(kind=model_pb2.COLUMN_KIND_CATEGORY, categories=["x", "y"]),
                model_pb2.Column(),
                model_pb2.Column(),
            ]
        )
    ]
    assert run("bench", "toy", *BRIEFLY)[0] == 0
