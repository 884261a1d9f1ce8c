"""The files that `dropserve predict` reads, and those that it refuses."""

from __future__ import annotations

import importlib
import io
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dropserve_client import Column, InputError
from dropserve_client.cli import reading
from support.fake_server import FakeService, answer_mean

ROWS = np.array([[1, 2, 3], [4, 5, 6]], np.float32)
TABLE = "label,c,a,b\nx,3,1,2\ny,6,4,5\n"

Run = Callable[..., tuple[int, str, str]]


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("with a header.csv", TABLE),
        ("with tabs.tsv", TABLE.replace(",", "\t")),
        ("WITH SEMICOLONS.CSV", TABLE.replace(",", ";")),
        ("with tabs after all.csv", TABLE.replace(",", "\t")),
        ("with a byte order mark.csv", "\ufeff" + TABLE),
        ("with windows' line ends.csv", TABLE.replace("\n", "\r\n")),
        ("with blank lines.csv", TABLE.replace("\n", "\n\n")),
        ("with spaces.csv", TABLE.replace(",", " , ")),
        ("with quotes.csv", 'label,"c",a,b\n"x, or\ny","3",1,2\ny,6,4,5\n'),
        ("without a header.csv", "1,2,3\n4,5,6\n"),
        ("without a header.tsv", "1\t2\t3\n4\t5\t6"),
    ],
)
def test_tables_of_every_kind_are_read(run: Run, tmp_path: Path, name: str, content: str) -> None:
    source, output = tmp_path / name, tmp_path / "output.npz"
    source.write_bytes(content.encode())
    assert run("predict", "toy", "--input", source, "--output", output)[0] == 0
    with np.load(output) as arrays:
        np.testing.assert_array_equal(arrays["mean"], answer_mean(ROWS))


def test_a_header_of_numbers_is_a_header_if_it_names_the_features(
    run: Run, tmp_path: Path, service: FakeService
) -> None:
    assert reading.read_features(_file(tmp_path, "2,0,1\n7,5,6\n"), ["0", "1", "2"]).tolist() == [[5, 6, 7]]
    assert reading.read_features(_file(tmp_path, "2,0,1\n7,5,6\n"), ["0", "1", "3"]).tolist() == [
        [2, 0, 1],
        [7, 5, 6],
    ]


def test_unnamed_columns_are_called_by_their_number_if_the_models_features_are(tmp_path: Path) -> None:
    """As the trainer calls them: the file that a model was trained on, target and all, predicts."""
    source = _file(tmp_path, "1,2,3\n4,5,6\n")
    assert reading.read_features(source, ["column_1", "column_3"]).tolist() == [[1, 3], [4, 6]]


COLUMNS = (Column("number", (), True), Column("category", ("blue", "red"), True), Column())
WANTED = [[1.5, 1, 3], [np.nan, -1, 4], [2, np.nan, 5]]


@pytest.mark.parametrize(
    ("content", "names"),
    [
        ("c,a,more,b\n3,1.5,x,red\n4,?,y,green\n5,2,z,\n", ("a", "b", "c")),
        ("1.5,red,3\nNA,green,4\n2,null,5\n", ("a", "b", "c")),
        ("red\t1.5\t3\tspam\ngreen\t\t4\tspam\nNaN\t2\t5\tspam\n", ("column_2", "column_1", "column_3")),
        ("column_3,column_2,column_1\n3,red,1.5\n4,green,\n5,,2\n", ("column_1", "column_2", "column_3")),
    ],
)
def test_categories_go_by_name_and_gaps_are_missing(
    tmp_path: Path, content: str, names: tuple[str, ...]
) -> None:
    found = reading.read_features(_file(tmp_path, content), names, COLUMNS)
    np.testing.assert_array_equal(found, WANTED)


@pytest.mark.parametrize(
    ("row", "told"),
    [
        ("1,red,x", "column 'c', row 2: 'x' is not a number"),
        ("1,red,", "column 'c', row 2: the value is missing"),
        ("x,red,1", "column 'a', row 2: 'x' is not a number"),
        ("inf,red,1", "column 'a', row 2: inf is not a finite float32 number"),
    ],
)
def test_what_columns_do_not_accept_is_named(tmp_path: Path, row: str, told: str) -> None:
    with pytest.raises(InputError, match=re.escape(told)):
        reading.read_features(_file(tmp_path, f"a,b,c\n,blue,1\n{row}\n"), ("a", "b", "c"), COLUMNS)
    strict = (Column(), Column("category", ("blue", "red")), Column())
    with pytest.raises(InputError, match="column 'c', row 1: the value is missing"):  # without a header
        reading.read_features(_file(tmp_path, "1,blue,\n"), ("a", "b", "c"), strict)
    with pytest.raises(InputError, match="column 'b', row 1: the value is missing"):
        reading.read_features(_file(tmp_path, "a,b,c\n1,?,1\n"), ("a", "b", "c"), strict)


def _file(folder: Path, content: str) -> str:
    path = folder / "file.csv"
    path.write_text(content)
    return str(path)


@pytest.mark.parametrize("content", [TABLE, TABLE.replace(",", "\t"), "1,2,3\n4,5,6\n"])
def test_standard_input_is_read(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: str
) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO(content))
    assert run("predict", "toy", "--input", "-")[1] == "row   u    v\n  1  21  300\n  2  54  600\n"


def test_npz_is_read_by_position_or_by_its_own_names(run: Run, tmp_path: Path) -> None:
    np.savez(tmp_path / "plain.npz", X=ROWS, y=[0, 1])
    np.savez(tmp_path / "named.npz", X=ROWS[:, [2, 0, 1]], feature_names=["c", "a", "b"])
    for name in ("plain.npz", "named.npz"):
        assert run("predict", "toy", "--input", tmp_path / name)[1].splitlines()[1].split() == [
            "1",
            "21",
            "300",
        ]


@pytest.mark.parametrize("reader", ["polars", "pyarrow"])
def test_parquet_is_read_where_a_reader_is_installed(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, reader: str
) -> None:
    pytest.importorskip(reader)
    parquet = pytest.importorskip("pyarrow.parquet")
    columns = {"c": [3, 6], "label": ["x", "y"], "a": [1.0, 4.0], "b": [2, 5]}
    path = tmp_path / "table.parquet"
    parquet.write_table(pytest.importorskip("pyarrow").table(columns), path)
    _hide(monkeypatch, {"polars", "pyarrow"} - {reader})
    assert run("predict", "toy", "--input", path)[1] == "row   u    v\n  1  21  300\n  2  54  600\n"
    path.write_bytes(b"PAR1 and then nothing")
    status, _, err = run("predict", "toy", "--input", path)
    assert (status, err.count("\n")) == (2, 1)
    assert "can't be read as Parquet" in err


def test_parquet_without_a_reader_names_the_extra(
    refusal: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    _hide(monkeypatch, {"polars", "pyarrow"})
    assert "pip install 'dropserve[train]'" in refusal("table.parquet", "PAR1")


def _hide(monkeypatch: pytest.MonkeyPatch, packages: set[str]) -> None:
    def only_the_others(name: str) -> Any:
        if name.partition(".")[0] in packages:
            raise ModuleNotFoundError(name=name)
        return importlib.import_module(name)

    monkeypatch.setattr("dropserve_client.cli.reading.import_module", only_the_others)


@pytest.mark.parametrize(
    ("name", "content", "told"),
    [
        ("absent.csv", "", "can't read absent.csv: No such file or directory"),
        ("table.xlsx", "x", "table.xlsx: unknown kind of file; .csv, .tsv, .npz or .parquet can be read"),
        ("empty.csv", "\n\n", "empty.csv is empty"),
        ("header.csv", "a,b,c\n", "header.csv has no rows below its header"),
        ("less.csv", "a,x\n1,2\n", "less.csv (its first line is a header) has no column 'b', 'c', which"),
        ("twice.csv", "a,b,c,b\n1,2,3,4\n", "twice.csv (its first line is a header) has 2 columns 'b'"),
        ("ragged.csv", "a,b,c\n1,2,3\n1,2\n", "ragged.csv, row 2 has 2 cells, and the first line has 3"),
        (
            "few.csv",
            "1,2\n3,4\n",
            "few.csv has no header and 2 columns; without one it must have",
        ),
        ("word.csv", "a,b,c\n1,2,3\n1,two,3\n", "word.csv, column 'b', row 2: 'two' is not a number"),
        ("gap.csv", "a,b,c\n1,2,3\n1, ,3\n", "gap.csv, column 'b', row 2: the value is missing"),
        ("nan.csv", "a,b,c\n1,nan,3\n", "nan.csv, column 'b', row 1: nan is not a finite float32 number"),
        ("huge.csv", "a,b,c\n1,2,1e39\n", "huge.csv, column 'c', row 1: 1e39 is not a finite float32 number"),
        ("latin.csv", b"a,b,c\n1,2,\xe9\n", "latin.csv is not UTF-8 text: "),
        ("nul.csv", b"a,b,c\n1,2,\0\n", "nul.csv, column 'c', row 1: '\\x00' is not a number"),
        ("text.npz", "no archive", "text.npz can't be read as NPZ: it is no archive of arrays"),
    ],
)
def test_a_file_that_cant_be_used_is_refused_in_one_line(
    refusal: Callable[..., str], name: str, content: str | bytes, told: str
) -> None:
    assert refusal(name, content).startswith(told)


def test_an_array_without_a_name_is_refused_in_one_line(refusal: Callable[..., str]) -> None:
    buffer = io.BytesIO()
    np.save(buffer, ROWS)
    told = "lone.npz can't be read as NPZ: it holds a single array, without a name"
    assert refusal("lone.npz", buffer.getvalue()) == told


@pytest.mark.parametrize(
    ("arrays", "told"),
    [
        ({"y": ROWS}, "has no array 'X' [rows, features]; it has: y"),
        ({"X": np.array([["a"]])}, "strings"),
        ({"X": np.array([[None]])}, "can't be read as NPZ"),
        ({"X": np.zeros(3)}, "its shape is (3,)"),
        ({"X": ROWS, "feature_names": ["a", "b"]}, "has no column 'c'"),
        ({"X": ROWS[:, :2], "feature_names": ["a", "b", "c"]}, "there are 3 feature_names"),
    ],
)
def test_arrays_that_cant_be_used_are_refused_in_one_line(
    refusal: Callable[..., str], arrays: dict[str, Any], told: str
) -> None:
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)
    assert told in refusal("arrays.npz", buffer.getvalue())
