from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from dropserve_models.columns import Column
from dropserve_models.errors import DataError
from dropserve_models.prediction import ModelInfo, Task
from dropserve_models.training.labelled import read_labelled, read_rows
from dropserve_models.training.sources import read_table


def info(task: Task, features: Sequence[str], outputs: Sequence[str]) -> ModelInfo:
    return ModelInfo("m", 1, task, tuple(features), tuple(outputs), (0.1,), False, "CPU")


REGRESSION = info("regression", ["a", "b"], ["y"])


def write(folder: Path, content: str, name: str = "data.csv") -> str:
    (folder / name).write_text(content)
    return str(folder / name)


def refused(source: str, model: ModelInfo, targets: Sequence[str] = (), *, header: bool = True) -> str:
    with pytest.raises(DataError) as caught:
        read_labelled(source, [model], targets, header=header)
    return str(caught.value)


def test_columns_are_taken_by_name(tmp_path: Path) -> None:
    source = write(tmp_path, "note,y,b,a\nx,1,2,3\nz,4,5,6\n")
    found = read_labelled(source, [REGRESSION])
    assert found.features.columns == ["a", "b"]
    np.testing.assert_array_equal(found.features.to_numpy(), np.array([[3, 2], [6, 5]], np.float32))
    np.testing.assert_array_equal(found.truth, [[1.0], [4.0]])
    assert read_rows(source, [REGRESSION]).equals(found.features)


def test_columns_of_several_models(tmp_path: Path) -> None:
    source = write(tmp_path, "y,b,a,c\n1,2,3,4\n")
    found = read_labelled(source, [REGRESSION, info("regression", ["c", "a"], ["y"])])
    assert found.features.columns == ["a", "b", "c"]


def test_the_fingerprint_is_that_of_training(tmp_path: Path) -> None:
    source = write(tmp_path, "a,b,y\n1,2,3\n4,5,6\n")
    assert read_labelled(source, [REGRESSION]).table.fingerprint() == read_table(source, ["y"]).fingerprint()


def test_a_target_of_another_name(tmp_path: Path) -> None:
    source = write(tmp_path, "a,b,z\n1,2,3\n")
    assert read_labelled(source, [REGRESSION], ["-1"]).truth.tolist() == [[3.0]]
    message = refused(source, REGRESSION)
    assert "has no column 'y', which m/1 predicts: name the column that holds it with --target;" in message
    assert message.endswith("there are: a, b, z")


def test_without_a_header(tmp_path: Path) -> None:
    source = write(tmp_path, "1,2,R\n3,4,M\n")
    model = info("binary", ["column_1", "column_2"], ["M", "R"])
    found = read_labelled(source, [model], header=False)
    assert found.truth.tolist() == [["R"], ["M"]]


@pytest.mark.parametrize(
    ("values", "labels"),
    [("1\n2\n", ["1", "2"]), ("true\nfalse\n", ["true", "false"]), ("0.5\n1.0\n", ["0.5", "1"])],
)
def test_classes_are_called_what_training_calls_them(values: str, labels: list[str], tmp_path: Path) -> None:
    rows = values.split()
    source = write(tmp_path, "a,b,y\n" + "".join(f"1,2,{value}\n" for value in rows))
    found = read_labelled(source, [info("binary", ["a", "b"], labels)])
    assert found.truth[:, 0].tolist() == labels


def test_arrays(tmp_path: Path) -> None:
    path = tmp_path / "data.npz"
    np.savez(path, X=np.arange(6).reshape(3, 2), y=np.ones(3), feature_names=["b", "a"])
    found = read_labelled(str(path), [info("regression", ["a", "b"], ["target"])])
    assert found.features["a"].to_list() == [1.0, 3.0, 5.0]
    assert found.truth.tolist() == [[1.0]] * 3
    assert "has no column 'a', which m/1 needs; it has: mean radius, " in refused(
        "sklearn:breast_cancer", REGRESSION
    )


def test_parquet(tmp_path: Path) -> None:
    path = tmp_path / "data.parquet"
    pl.DataFrame({"a": [1], "b": [2.5], "y": [3]}).write_parquet(path)
    assert read_labelled(str(path), [REGRESSION]).features.row(0) == (1.0, 2.5)


@pytest.mark.parametrize(
    ("content", "targets", "message"),
    [
        ("a,b,y\n1,2,u\n3,4,v\n", [], "column 'y' holds text (u); the model predicts numbers"),
        ("a,b,y\n1,2,\n", [], "column 'y', row 1: the value is missing"),
        ("a,b,y,z\n1,2,3,4\n", ["y", "z"], "m/1 has 1 targets; 2 were given"),
    ],
)
def test_a_truth_that_is_none(content: str, targets: list[str], message: str, tmp_path: Path) -> None:
    assert message in refused(write(tmp_path, content), REGRESSION, targets)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("a,k,y\n1,u,3\n2,,4\n", "column 'k', row 2: the value is missing; fill it"),
        ("a,k,y\n1,u,3\n2, NA ,4\n", "column 'k', row 2: the value is missing ('NA'); fill it"),
        ("a,k,y\n1e39,u,3\n", "column 'a', row 1: 1e+39 does not fit float32; rescale the column"),
    ],
)
def test_features_that_are_none_are_told_with_their_row_of_the_file(
    content: str, message: str, tmp_path: Path
) -> None:
    model = replace(REGRESSION, feature_names=("a", "k"), columns=(Column(), Column("category", ("u", "v"))))
    assert message in refused(write(tmp_path, content), model)
