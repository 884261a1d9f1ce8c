from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl
import pytest

from dropserve_models.columns import Column
from dropserve_models.errors import DataError
from dropserve_models.training.sources import read_table
from support.sources import Write, refused


def test_columns_of_text_are_categories_and_empty_cells_missing(write: Write) -> None:
    table = read_table(write("a,b,c,y\nred,1,x,1\n blue ,,N/A,2\nred,?,x,3\ngreen,4,z,4\n"), ["y"])
    assert table.columns == (
        Column("category", ("blue", "green", "red")),
        Column("number", (), True),
        Column("category", ("x", "z"), True),
    )
    nan = np.nan
    np.testing.assert_array_equal(table.features, [[2, 1, 0], [0, nan, nan], [2, nan, 0], [1, 4, 1]])


def test_numbers_are_categories_where_asked(write: Write) -> None:
    source = write("10,1,0.5,1\n2,1,0.25,2\n03,1,,3\n2.0,2,0.5,4\n")
    table = read_table(source, ["-1"], header=False, categorical=["column_1", "3"])
    assert table.columns == (
        Column("category", ("2", "3", "10")),
        Column(),
        Column("category", ("0.25", "0.5"), True),
    )
    np.testing.assert_array_equal(table.features, [[2, 1, 1], [0, 1, 0], [1, 1, np.nan], [0, 2, 1]])
    same = read_table("sklearn:iris", categorical=["petal width (cm)"])
    assert same.columns[3].categories[:3] == ("0.1", "0.2", "0.3")
    assert [column.kind for column in same.columns] == ["number"] * 3 + ["category"]


@pytest.mark.parametrize(
    ("text", "columns"),
    [
        ("true\nfalse\ntrue", Column("category", ("false", "true"))),
        ("1\n2\n3", Column()),
        ("1\n\n3", Column("number", (), True)),
        ("a\n\nb", Column("category", ("a", "b"), True)),
    ],
)
def test_what_a_column_is_told_from_its_values(write: Write, text: str, columns: Column) -> None:
    rows = "\n".join(f"{cell},{number},{number}" for number, cell in enumerate(text.split("\n")))
    found = read_table(write(f"a,b,y\n{rows}\n"), ["y"]).columns
    assert found == (() if columns == Column() else (columns, Column()))


def test_booleans_nulls_and_categories_of_parquet(tmp_path: Path) -> None:
    path = tmp_path / "data.parquet"
    frame = pl.DataFrame({
        "flag": [True, None, False], "kind": pl.Series(["u", None, "v"], dtype=pl.Categorical),
        "level": [1.5, float("nan"), None], "y": [1, 2, 3],
    })  # fmt: skip
    frame.write_parquet(path)
    table = read_table(str(path), ["y"])
    assert [column.kind for column in table.columns] == ["number", "category", "number"]
    assert all(column.accepts_missing for column in table.columns)
    nan = np.nan
    np.testing.assert_array_equal(table.features, [[1, 0, 1.5], [nan, nan, nan], [0, 1, nan]])


def test_missing_values_and_text_in_npz(save: Write) -> None:
    X = np.array([[1.0, np.nan], [2.0, 3.0]])
    table = read_table(save(X=X, y=np.arange(2)), ())
    assert table.columns == (Column(), Column(accepts_missing=True))
    np.testing.assert_array_equal(table.features, X)
    table = read_table(save(X=np.array([["a", "1"], ["b", "2"]]), y=np.arange(2)), ())
    assert table.columns == (Column("category", ("a", "b")), Column())
    np.testing.assert_array_equal(table.features, [[0, 1], [1, 2]])


def test_text_that_hardly_repeats_is_refused_unless_asked_for(write: Write) -> None:
    rows = "".join(f"name {number},{number}\n" for number in range(60))
    message = "column 'a' holds text with 60 different values in 60 rows, from which little can be learned"
    assert message in refused(write(f"a,y\n{rows}"))
    assert len(read_table(write(f"a,y\n{rows}"), ["y"], categorical=["a"]).columns[0].categories) == 60


def test_a_categorical_column_that_is_not_there_or_the_target(write: Write) -> None:
    source = write("a,y\n1,2\n3,4\n")
    with pytest.raises(DataError, match=r"has no column 'b' to be categorical; it has: a, y"):
        read_table(source, ["y"], categorical=["b"])
    with pytest.raises(DataError, match="'y' is the target: it can't be a categorical feature as well"):
        read_table(source, ["y"], categorical=["2"])


def test_the_fingerprint_covers_the_categories(write: Write) -> None:
    prints = {
        read_table(write(f"a,y\n{one},1\n{two},2\n"), ["y"]).fingerprint()
        for one, two in (("u", "v"), ("u", "w"), ("v", "u"))
    }
    assert len(prints) == 3
