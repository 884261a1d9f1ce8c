"""`dropserve predict` and `dropserve models` against a real server with an imaginary model."""

from __future__ import annotations

import csv
import json
import os
import shutil
import sys
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest

from dropserve.v1 import model_pb2
from dropserve_client import Prediction, wire
from dropserve_client.cli.writing import write_prediction
from support.fake_server import Failure, FakeService, answer_mean, model

ROWS = np.array([[1, 2, 3], [4, 5, 6]], np.float32)
TABLE = "label,c,a,b\nx,3,1,2\ny,6,4,5\n"

Run = Callable[..., tuple[int, str, str]]


def classifier(**fields: Any) -> model_pb2.ModelInfo:
    return model(task=model_pb2.TASK_BINARY, output_names=["no", "yes"], **fields)


def test_a_point_prediction_is_printed_as_a_table(run: Run, table: Path) -> None:
    assert run("predict", "toy", "--input", table) == (0, "row   u    v\n  1  21  300\n  2  54  600\n", "")


def test_error_bars_are_printed_beside_the_means(run: Run, table: Path) -> None:
    options = ["--passes", "9", "--seed", "4", "--quantiles", "0.25"]
    status, out, _ = run("predict", "toy", "--input", table, *options)
    assert status == 0
    assert out.splitlines() == [
        "row       u  u_q0.25        v  v_q0.25",
        "  1  21 ± 2    21.25  300 ± 2    300.2",
        "  2  54 ± 2    54.25  600 ± 2    600.2",
        "± is the standard deviation over 9 dropout passes.",
    ]


def test_noise_is_printed_where_the_model_predicts_it(run: Run, table: Path, service: FakeService) -> None:
    service.models = [model(predicts_noise=True)]
    status, out, _ = run("predict", "toy", "--input", table, "--passes", "9", "--seed", "4")
    assert status == 0
    assert out.splitlines()[0].split() == ["row", "u", "u_aleatoric_std", "v", "v_aleatoric_std"]
    assert "noise that the model predicts" in out


def test_classes_are_printed_with_probability_and_entropy(
    run: Run, table: Path, service: FakeService
) -> None:
    service.models = [classifier()]
    status, out, _ = run("predict", "toy", "--input", table, "--passes", "9", "--seed", "4")
    assert status == 0
    assert out.splitlines()[:2] == [
        "row  label      probability  entropy",
        "  1  yes    300.000 ± 2.000   23.000",
    ]


def test_no_more_than_a_screenful_is_printed_on_a_terminal(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "long.csv"
    path.write_text("a,b,c\n" + "1,2,3\n" * 500)
    assert len(run("predict", "toy", "--input", path)[1].splitlines()) == 501
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    monkeypatch.setattr(shutil, "get_terminal_size", lambda: os.terminal_size((80, 24)))
    out = run("predict", "toy", "--input", path)[1].splitlines()
    assert len(out) < 24
    assert out[-1] == f"... {500 - (len(out) - 2)} more rows: --output FILE writes them all."


def test_options_reach_the_server(run: Run, table: Path, service: FakeService) -> None:
    service.models = [model(version="7", is_default=False), model(version="8")]
    options = ["--passes", "9", "--seed", "4", "--quantiles", ".1,.9", "--masks", "independent"]
    assert run("predict", "toy", "--input", table, "--version", "7", *options)[0] == 0
    (request,) = service.predict_calls
    assert (request.version, request.monte_carlo.passes, request.monte_carlo.seed) == ("7", 9, 4)
    assert list(request.monte_carlo.quantiles) == [0.1, 0.9]


@pytest.mark.parametrize("option", [["--seed", "7"], ["--quantiles", ".5"], ["--masks", "stratified"]])
def test_monte_carlo_options_need_passes(refusal: Callable[..., str], option: list[str]) -> None:
    assert refusal("table.csv", TABLE, *option).startswith(f"{option[0]} needs --passes")


@pytest.mark.parametrize(
    ("option", "told"),
    [
        (["--passes", "0"], "passes must be an integer from 1"),
        (["--passes", "9", "--seed", "-1"], "seed must be an integer from 0"),
        (["--quantiles", "half"], "'half' is not a list of numbers"),
        (["--timeout", "-1"], "timeout must be a positive number"),
        (["--version", "9"], "there is no model"),
        (["--tls-ca", "absent.pem"], "can't read the root certificates absent.pem"),
    ],
)
def test_wrong_options_are_refused_in_one_line(
    refusal: Callable[..., str], option: list[str], told: str
) -> None:
    assert told in refusal("table.csv", TABLE, *option)


def test_an_unknown_model_is_refused(refusal: Callable[..., str]) -> None:
    assert "there is no model" in refusal("table.csv", TABLE, model="other")


@pytest.mark.parametrize("separator", [",", "\t"])
def test_a_table_is_written(run: Run, table: Path, service: FakeService, separator: str) -> None:
    service.models = [classifier()]
    output = table.with_name("output.csv" if separator == "," else "output.tsv")
    options = ["--passes", "9", "--seed", "4", "--quantiles", ".5", "--output", str(output)]
    status, out, _ = run("predict", "toy", "--input", table, *options)
    assert (status, out) == (0, f"2 rows predicted by toy version 1, in {output}\n")
    with output.open(newline="") as file:
        first, second = csv.DictReader(file, delimiter=separator)
    assert first == {
        "label": "yes",
        "no": "21.0",
        "no_std": "2.0",
        "no_standard_error": "0.5",
        "no_q0.5": "21.5",
        "yes": "300.0",
        "yes_std": "2.0",
        "yes_standard_error": "0.5",
        "yes_q0.5": "300.5",
        "predictive_entropy": "23.0",
        "expected_entropy": "22.0",
        "mutual_information": "1.0",
    }
    assert second["yes"] == "600.0"


def test_json_is_written(run: Run, table: Path, service: FakeService) -> None:
    service.models = [model(predicts_noise=True)]
    output = table.with_name("output.json")
    assert run("predict", "toy", "--input", table, "--passes", "9", "--seed", "4", "--output", output)[0] == 0
    document = json.loads(output.read_text())
    assert (document["model"], document["version"], document["passes"]) == ("toy", "1", 9)
    row = document["rows"][1]
    assert (row["u"], row["u_std"], row["u_aleatoric_std"]) == (54, 2, 2)
    assert row["u_predictive_std"] == pytest.approx(8**0.5)
    assert len(document["rows"]) == 2


def test_arrays_are_written(run: Run, table: Path) -> None:
    output = table.with_name("output.npz")
    options = ["--passes", "9", "--seed", "4", "--quantiles", ".1,.9"]
    assert run("predict", "toy", "--input", table, *options, "--output", output)[0] == 0
    with np.load(output) as arrays:
        assert set(arrays) == {"mean", "variance", "standard_error", "quantiles", "output_names"}
        assert arrays["quantiles"].shape == (2, 2, 2)
        np.testing.assert_array_equal(arrays["mean"], answer_mean(ROWS))
        assert arrays["output_names"].tolist() == ["u", "v"]


def test_every_array_of_a_prediction_is_written(tmp_path: Path) -> None:
    names = [field.name for field in fields(Prediction) if field.default is None]
    assert {"std_standard_error", "row_passes", "prediction_set"} < set(names)
    given: dict[str, Any] = {
        name: np.full((1, 1), number, np.float32) for number, name in enumerate(["mean", *names])
    }
    output = tmp_path / "output.npz"
    write_prediction(output, Prediction(**given), wire.model_info(model(output_names=["u"])), ())
    with np.load(output) as arrays:
        assert set(arrays) == {*given, "output_names"}
        assert {name: arrays[name].item() for name in given} == {
            name: number for number, name in enumerate(given)
        }


def test_numbers_are_written_as_short_as_they_are(run: Run, tmp_path: Path) -> None:
    source, output = tmp_path / "in.csv", tmp_path / "out.csv"
    source.write_text("a,b,c\n0.1,0,0\n")
    assert run("predict", "toy", "--input", source, "--output", output)[0] == 0
    assert output.read_text() == "u,v\n0.1,0.0\n"


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("output.xls", "unknown kind of file; .csv, .tsv, .json, .npz can be written"),
        ("absent/output.csv", "there is no folder"),
    ],
)
def test_an_output_that_cant_be_written_is_refused_before_anything_is_asked(
    run: Run, table: Path, service: FakeService, name: str, told: str
) -> None:
    status, _, err = run("predict", "toy", "--input", table, "--output", table.parent / name)
    assert (status, err.count("\n")) == (2, 1)
    assert told in err
    assert service.calls == []


def test_a_file_is_written_whole_or_not_at_all(
    run: Run, table: Path, service: FakeService, monkeypatch: pytest.MonkeyPatch
) -> None:
    output = table.with_name("output.csv")
    output.write_text("what was there")

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    status, _, err = run("predict", "toy", "--input", table, "--output", output)
    assert (status, err) == (2, f"dropserve predict: can't write {output}: No space left on device\n")
    assert output.read_text() == "what was there"
    assert {path.name for path in table.parent.iterdir()} == {"table.csv", "output.csv"}
    monkeypatch.undo()
    service.failures.append(Failure(grpc.StatusCode.INTERNAL))
    assert run("predict", "toy", "--input", table, "--output", output)[0] == 1
    assert output.read_text() == "what was there"
    assert run("predict", "toy", "--input", table, "--output", output)[0] == 0
    assert output.read_text().startswith("u,v\n")


def test_a_failure_of_the_server_is_told_in_one_line(run: Run, table: Path, service: FakeService) -> None:
    service.failures.append(Failure(grpc.StatusCode.RESOURCE_EXHAUSTED, "the queue is full"))
    assert run("predict", "toy", "--input", table) == (1, "", "dropserve predict: the queue is full\n")


def test_a_model_without_dropout_has_no_error_bars(run: Run, table: Path, service: FakeService) -> None:
    service.failures.append(Failure(grpc.StatusCode.FAILED_PRECONDITION, "it has no Dropout node"))
    assert run("predict", "toy", "--input", table, "--passes", "9")[0] == 2


@pytest.mark.parametrize("command", [["models"], ["predict", "toy", "--input", "table.csv"]])
def test_no_server_is_told_in_one_line(run: Run, command: list[str]) -> None:
    status, out, err = run(*command, server="localhost:1")
    assert (status, out) == (1, "")
    assert err.count("\n") == 1
    assert err.startswith(f"dropserve {command[0]}: no dropserve server answers at localhost:1: ")
    assert "Connection refused" in err


def test_models_are_listed(run: Run, service: FakeService) -> None:
    service.models = [
        model(
            "digits", "1", is_default=False, task=model_pb2.TASK_MULTICLASS, output_names=list("0123456789")
        ),
        model(
            "digits", "2", drop_rates=[], calibrated=True, monte_carlo_unavailable="it has no Dropout node"
        ),
    ]
    status, out, _ = run("models")
    assert status == 0
    header, first, second = out.splitlines()
    assert header.split("  ")[0] == "name"
    for part in ("digits", "multiclass", "0, 1, 2, ... (10)", "0.1, 0.5", "CPU"):
        assert part in first
    assert first.split()[-2:] == ["no", "yes"]  # intervals, error bars
    for part in ("2 (default)", "regression", "u, v", "none"):
        assert part in second
    assert second.partition("CPU")[2].split(maxsplit=1) == ["yes", "no: it has no Dropout node"]


def test_what_should_be_served_and_is_not_is_named(run: Run, service: FakeService) -> None:
    service.not_served = [
        model_pb2.VersionStatus(name="toy", version="3", state=model_pb2.VERSION_STATE_FAILED),
        model_pb2.VersionStatus(name="toy", version="4", state=model_pb2.VERSION_STATE_LOADING),
    ]
    status, out, err = run("models")
    assert (status, len(out.splitlines())) == (0, 2)
    assert err.splitlines() == [
        "toy 3 is not served: failed; the server's log says why",
        "toy 4 is not served: loading",
    ]


def test_a_server_without_models_says_so(run: Run, service: FakeService, address: str) -> None:
    service.models = []
    assert run("models") == (0, f"{address} serves no models\n", "")
