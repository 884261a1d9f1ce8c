from __future__ import annotations

from datetime import date
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from dropserve_models.errors import DataError
from dropserve_models.training.bundled import BUNDLED
from dropserve_models.training.sources import read_table
from support.sources import Write, refused


@pytest.mark.parametrize(
    ("content", "name"),
    [
        ("a,b,y\n1,2,3\n4,5,6\n", "data.csv"),
        ("a;b;y\n1;2;3\n4;5;6\n", "data.csv"),
        ("a\tb\ty\n1\t2\t3\n4\t5\t6\n", "data.csv"),
        ("a\tb\ty\n1\t2\t3\n4\t5\t6\n", "data.TSV"),
        ("\ufeffa, b ,y\r\n 1,2 ,3\r\n4,5,6\r\n", "data.csv"),
        ('"a","b","y"\n"1","2","3"\n4,5,6', "data.csv"),
    ],
)
def test_delimited_files(write: Write, content: str, name: str) -> None:
    table = read_table(write(content, name), ["y"])
    assert table.feature_names == ("a", "b")
    np.testing.assert_array_equal(table.features, np.array([[1, 2], [4, 5]], np.float32))
    assert table.features.dtype == np.float32
    assert table.targets[0].name == "y"
    np.testing.assert_array_equal(table.targets[0].values, [3.0, 6.0])


def test_a_comma_in_a_quoted_name_is_no_separator(write: Write) -> None:
    assert read_table(write('"a, b";y\n1;2\n3;4\n'), ["y"]).feature_names == ("a, b",)


@pytest.mark.parametrize("target", ["column_3", "3", "-1"])
def test_without_a_header(write: Write, target: str) -> None:
    table = read_table(write("1,2,R\n3,4,M\n"), [target], header=False)
    assert table.feature_names == ("column_1", "column_2")
    assert table.targets[0].values.tolist() == ["R", "M"]
    assert table.rows == 2


def test_targets_by_name_before_number(write: Write) -> None:
    table = read_table(write("2,1,a\n10,20,30\n11,21,31\n"), ["1", "-1"])
    assert [target.name for target in table.targets] == ["1", "a"]
    assert table.feature_names == ("2",)


def test_columns_are_separated_by_commas_but_for_one_that_has_a_comma_in_its_name(write: Write) -> None:
    path = write('"price, $",size,"b,c",y\n10,20,3,1\n11,21,4,2\n12,22,5,3\n')
    assert [target.name for target in read_table(path, ["price, $"]).targets] == ["price, $"]
    several = read_table(path, ["y, size", "b,c"], categorical=("price, $",))
    assert [target.name for target in several.targets] == ["y", "size", "b,c"]
    assert several.columns[0].categories == ("10", "11", "12")
    with pytest.raises(DataError, match="no column 'z' to be the target"):
        read_table(path, ["y,z"])


def test_parquet(tmp_path: Path) -> None:
    path = tmp_path / "data.parquet"
    pl.DataFrame(
        {
            "whole": [1, 2],
            "flag": [True, False],
            "text": ["0.5", " 1.5 "],
            "y": pl.Series(["b", "a"], dtype=pl.Categorical),
        }
    ).write_parquet(path)
    table = read_table(str(path), ["y"])
    np.testing.assert_array_equal(table.features, np.array([[1, 1, 0.5], [2, 0, 1.5]], np.float32))
    assert table.targets[0].values.tolist() == ["b", "a"]


@pytest.mark.parametrize("name", BUNDLED)
def test_bundled_sets(name: str) -> None:
    table = read_table(f"sklearn:{name}")
    assert table.features.shape == (table.rows, len(table.feature_names))
    assert len(table.targets) == (3 if name == "linnerud" else 1)
    if name == "breast_cancer":
        assert table.targets[0].labels == ("malignant", "benign")
        assert table.feature_names[0] == "mean radius"


def test_the_fingerprint_sees_names_values_and_targets(write: Write) -> None:
    contents = ["a,y\n1,2\n3,4\n", "b,y\n1,2\n3,4\n", "a,y\n1,2\n3,5\n", "a,y\n1,2\n9,4\n", "a,y\n1,p\n3,q\n"]
    prints = [read_table(write(content), ["y"]).fingerprint() for content in contents]
    assert len(set(prints)) == len(contents)
    assert read_table(write(contents[0].replace(",", ";")), ["y"]).fingerprint() == prints[0]


def test_unknown_bundled_set() -> None:
    assert refused("sklearn:mnist").endswith(
        "there are: breast_cancer, diabetes, digits, iris, linnerud, wine"
    )


def test_missing_file(tmp_path: Path) -> None:
    assert refused(str(tmp_path / "no.csv")) == f"there is no file {tmp_path / 'no.csv'}"
    (tmp_path / "folder.csv").mkdir()
    assert "there is no file" in refused(str(tmp_path / "folder.csv"))


def test_unknown_extension(write: Write) -> None:
    assert ".csv, .tsv, .parquet, .npz or sklearn:NAME" in refused(write("x", "data.xlsx"))


@pytest.mark.parametrize("name", ["d.csv", "d.tsv", "d.parquet", "d.npz"])
def test_empty_file(write: Write, name: str) -> None:
    assert "is empty" in refused(write("", name))


@pytest.mark.parametrize("name", ["d.csv", "d.parquet", "d.npz"])
def test_content_of_another_kind(write: Write, name: str) -> None:
    assert refused(write(b"\x89PNG\r\n\x1a\n\xff\xff\x00", name))


def test_not_utf_8_below_the_first_line(write: Write) -> None:
    assert "is not UTF-8" in refused(write(b"a,y\n1,2\n\xe9,3\n"))


def test_unreadable_file(write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    source = write("a,y\n1,2\n")

    def denied(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "open", denied)
    assert refused(source) == f"can't read {source}: Permission denied"


@pytest.mark.parametrize(
    ("content", "message"), [("\n\n", "first line"), ("a,y\n", "no rows"), ("a,y", "no rows")]
)
def test_no_rows(write: Write, content: str, message: str) -> None:
    assert message in refused(write(content))


def test_missing_target_column(write: Write) -> None:
    source = write("a,b\n1,2\n")
    assert refused(source) == f"{source} has no column 'y' to be the target; it has: a, b"
    assert refused(source, ()) == f"which column of {source} is the target? it has: a, b"
    assert "no column '3'" in refused(source, ["3"])
    assert "no column '0'" in refused(source, ["0"])


def test_a_forgotten_header_is_guessed_at(write: Write) -> None:
    source = write("0.1,0.2,R\n0.3,0.4,M\n")
    assert refused(source).endswith("is the first line data? then --no-header")
    assert "--no-header" in refused(write("1,1,R\n3,4,M\n"))


def test_many_columns_are_not_all_listed(write: Write) -> None:
    names = [f"c{i}" for i in range(100)]
    source = write(",".join(names) + "\n" + ",".join("1" for _ in names) + "\n")
    assert refused(source).endswith("c19, ... (100 in all)")


def test_targets_given_twice_and_nothing_left(write: Write) -> None:
    source = write("a,b\n1,2\n")
    assert "given twice" in refused(source, ["a", "1"])
    assert "no column but the target" in refused(source, ["a", "b"])


@pytest.mark.parametrize("header", ["a,a,y", "y,a,y", " a,a ,y"])
def test_repeated_column_names(write: Write, header: str) -> None:
    assert "occurs more than once" in refused(write(f"{header}\n1,2,3\n"))


def test_a_column_without_a_name(write: Write) -> None:
    assert "column 2 has no name" in refused(write("a,,y\n1,2,3\n"))


@pytest.mark.parametrize(("row", "count"), [("4,5", 2), ("4,5,6,7", 4)])
@pytest.mark.parametrize("header", [True, False])
def test_ragged_rows(write: Write, row: str, count: int, header: bool) -> None:
    first = "a,b,y\n" if header else ""
    source = write(f"{first}1,2,3\n{row}\n7,8,9\n")
    targets = ["y"] if header else ["-1"]
    assert (
        refused(source, targets, header=header) == f"{source}, row 2 has {count} fields, the first line has 3"
    )


def test_an_empty_line(write: Write) -> None:
    assert "row 2 is empty" in refused(write("a,y\n1,2\n\n3,4\n"))


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (
            "blue",
            (
                "column 'b', row 2: 'blue' is not a number; most values are: correct it, drop the column, "
                "or name it with --categorical"
            ),
        ),
        ('"1,5"', "column 'b', row 2: '1,5' is not a number; write decimals with a point"),
        ("-inf", "column 'b', row 2: the value is infinite; fill it, or drop the row"),
        ("1e400", "column 'b', row 2: the value is infinite; fill it, or drop the row"),
        ("1e39", "column 'b', row 2: 1e+39 does not fit float32; rescale the column"),
    ],
)
def test_a_wrong_feature_value_is_told_with_its_place(write: Write, value: str, message: str) -> None:
    assert refused(write(f"a,b,y\n1,2,3\n4,{value},6\n7,8,9\n")) == message


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("", "column 'y', row 2: the value is missing"),
        ("nan", "column 'y', row 2: the value is missing ('nan')"),
        ("inf", "column 'y', row 2: the value is infinite"),
        ("n.b.", "column 'y', row 2: 'n.b.' is not a number"),
    ],
)
def test_a_wrong_target_value_among_numbers(write: Write, value: str, message: str) -> None:
    assert refused(write(f"a,y\n1,2\n4,{value}\n7,8\n")).startswith(message)


def test_a_missing_class(write: Write) -> None:
    assert "column 'y', row 3: the value is missing" in refused(write("a,y\n1,u\n4,v\n7,\n"))


@pytest.mark.parametrize(
    ("column", "message"),
    [
        (pl.Series("a", [None, float("nan")]), "has no value in any row; drop it"),
        (pl.Series("a", [1.0, float("inf")]), "row 2: the value is infinite"),
        (pl.Series("a", [[1], [2]]), "encode it as numbers"),
        (pl.Series("a", [date(2026, 1, 1), date(2026, 1, 2)]), "holds Date values, not numbers"),
        (pl.Series("a", ["1", "x"]), "row 2: 'x' is not a number"),
    ],
)
def test_wrong_parquet_values(tmp_path: Path, column: pl.Series, message: str) -> None:
    path = tmp_path / "data.parquet"
    pl.DataFrame([column, pl.Series("y", [1, 2])]).write_parquet(path)
    found = refused(str(path))
    assert found.startswith("column 'a'")
    assert message in found
