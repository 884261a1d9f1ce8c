"""Intervals and prediction sets as the SDK and the command line give them."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest

from dropserve.v1 import model_pb2
from dropserve_client import InputError, IntervalUnavailable, MonteCarloUnavailable, ProtocolError
from support.fake_server import Failure, FakeService, answer_mean, model, status_details

ROWS = np.arange(30, dtype=np.float32).reshape(10, 3)
Run = Callable[..., tuple[int, str, str]]


def classifier() -> model_pb2.ModelInfo:
    return model(task=model_pb2.TASK_BINARY, output_names=["no", "yes"], calibrated=True)


@pytest.mark.parametrize("passes", [None, 7])
def test_a_prediction_has_the_interval_asked_for(client: Any, passes: int | None) -> None:
    prediction = client.predict("toy", ROWS, passes=passes, interval=0.75)
    np.testing.assert_array_equal(prediction.interval_lower, answer_mean(ROWS) - 0.75)
    np.testing.assert_array_equal(prediction.interval_upper, answer_mean(ROWS) + 0.75)
    assert prediction.prediction_set is None
    assert prediction.interval_lower.flags.writeable


def test_without_asking_there_is_none(client: Any, service: FakeService) -> None:
    prediction = client.predict("toy", ROWS)
    assert prediction.interval_lower is None
    assert prediction.interval_upper is None
    assert service.predict_calls[-1].interval == 0.0


def test_parts_of_a_split_request_are_joined(connect: Any, address: str, service: FakeService) -> None:
    small = connect(address, request_rows=3)
    prediction = small.predict("toy", ROWS, interval=0.5)
    assert [call.interval for call in service.predict_calls] == [0.5] * 4
    np.testing.assert_array_equal(prediction.interval_upper, answer_mean(ROWS) + 0.5)


@pytest.mark.parametrize("passes", [None, 7])
def test_a_server_that_knows_no_intervals_is_told_from_one_that_gives_them(
    client: Any, service: FakeService, passes: int | None
) -> None:
    service.knows_intervals = False
    assert client.predict("toy", ROWS, passes=passes).interval_lower is None
    with pytest.raises(ProtocolError, match="the answer has no interval: the server is an older one"):
        client.predict("toy", ROWS, passes=passes, interval=0.9)


def test_many_batches_take_an_interval(client: Any) -> None:
    found = list(client.predict_many("toy", [ROWS[:2], ROWS[2:5]], interval=0.5))
    assert [prediction.interval_lower.shape for prediction in found] == [(2, 2), (3, 2)]


def test_a_set_has_a_column_for_each_class(client: Any, service: FakeService) -> None:
    service.models = [classifier()]
    prediction = client.predict("toy", ROWS, interval=0.9)
    np.testing.assert_array_equal(prediction.prediction_set[:2], [[1, 0], [1, 1]])
    assert prediction.interval_lower is None


@pytest.mark.parametrize("interval", [0, 1, -0.5, 1.5, float("nan"), "wide", [0.9]])
def test_a_coverage_out_of_range_is_refused_here(client: Any, service: FakeService, interval: Any) -> None:
    with pytest.raises(InputError, match=r"interval must be a coverage above 0 and below 1") as refusal:
        client.predict("toy", ROWS, interval=interval)
    assert refusal.value.field == "interval"
    assert not service.predict_calls


def test_a_model_without_calibration_is_told_from_one_without_error_bars(
    client: Any, service: FakeService
) -> None:
    precondition = grpc.StatusCode.FAILED_PRECONDITION
    service.failures.append(Failure(precondition, "not calibrated", status_details("interval")))
    with pytest.raises(IntervalUnavailable, match="not calibrated") as refusal:
        client.predict("toy", ROWS, interval=0.9)
    assert (refusal.value.code, refusal.value.field) == (precondition, "interval")
    service.failures.append(Failure(precondition, "no dropout"))
    with pytest.raises(MonteCarloUnavailable, match="no dropout"):
        client.predict("toy", ROWS, passes=3)


def test_a_model_says_whether_it_is_calibrated(client: Any, service: FakeService) -> None:
    assert not client.get_model("toy").calibrated
    service.models = [classifier()]
    assert client.get_model("toy").calibrated


def test_intervals_are_printed_beside_the_means(run: Run, table: Path) -> None:
    status, out, _ = run("predict", "toy", "--input", table, "--interval", ".75")
    assert status == 0
    assert out.splitlines() == [
        "row   u      u_interval    v      v_interval",
        "  1  21  [20.25, 21.75]  300  [299.2, 300.8]",
        "  2  54  [53.25, 54.75]  600  [599.2, 600.8]",
        "interval holds the target in 75 % of the rows.",
    ]


def test_sets_are_printed_as_labels(run: Run, table: Path, service: FakeService) -> None:
    service.models = [classifier()]
    status, out, _ = run("predict", "toy", "--input", table, "--interval", ".9")
    assert status == 0
    assert out.splitlines()[0].split() == ["row", "label", "probability", "set"]
    assert [line.split("  ")[-1] for line in out.splitlines()[1:3]] == ["no", "no, yes"]
    assert out.splitlines()[-1] == "set holds the class in 90 % of the rows."


def test_files_have_columns_of_them(run: Run, table: Path, tmp_path: Path, service: FakeService) -> None:
    path = tmp_path / "out.csv"
    assert run("predict", "toy", "--input", table, "--interval", ".75", "--output", path)[0] == 0
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert rows[0] == {
        "u": "21.0", "u_lower": "20.25", "u_upper": "21.75",
        "v": "300.0", "v_lower": "299.25", "v_upper": "300.75",
    }  # fmt: skip
    service.models = [classifier()]
    path = tmp_path / "out.json"
    assert run("predict", "toy", "--input", table, "--interval", ".9", "--output", path)[0] == 0
    assert [row["yes_in_set"] for row in json.loads(path.read_text())["rows"]] == [0.0, 1.0]
    path = tmp_path / "out.npz"
    assert run("predict", "toy", "--input", table, "--interval", ".9", "--output", path)[0] == 0
    with np.load(path) as arrays:
        np.testing.assert_array_equal(arrays["prediction_set"], [[1, 0], [1, 1]])
