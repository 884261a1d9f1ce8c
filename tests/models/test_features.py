"""What a caller may hand to `predict`, and what it is told where it can't be read."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pytest

from dropserve_models.errors import InputError
from dropserve_models.features import read_features

NAMES = ("height", "width", "depth")
VALUES = [[1.0, 2.0, 3.0], [4.0, 5.0, 6.5]]


def refused(X: Any) -> str:
    with pytest.raises(InputError) as caught:
        read_features(X, NAMES)
    assert caught.value.field == "inputs"
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize(
    "X",
    [
        VALUES,
        tuple(map(tuple, VALUES)),
        np.array(VALUES),
        np.array(VALUES, np.float32),
        np.array(VALUES, np.float16),
        np.array(VALUES, object),
        np.asfortranarray(np.array(VALUES)),
        np.array(VALUES).repeat(2, axis=0)[::2],
        pd.DataFrame(VALUES, columns=NAMES),
        pl.DataFrame(VALUES, schema=NAMES, orient="row"),
    ],
    ids=[
        "lists",
        "tuples",
        "float64",
        "float32",
        "float16",
        "object",
        "fortran",
        "strided",
        "pandas",
        "polars",
    ],
)
def test_rows_by_columns(X: Any) -> None:
    read = read_features(X, NAMES)
    assert read.dtype == np.float32
    assert read.flags.c_contiguous
    np.testing.assert_array_equal(read, np.array(VALUES, np.float32))


def test_integers_and_booleans_are_numbers() -> None:
    np.testing.assert_array_equal(read_features([[1, 0, -2]], NAMES), [[1.0, 0.0, -2.0]])
    np.testing.assert_array_equal(read_features(np.array([[True, False, True]]), NAMES), [[1.0, 0.0, 1.0]])


def test_the_callers_array_is_left_alone() -> None:
    X = np.array(VALUES, np.float32)
    read_features(X, NAMES)
    np.testing.assert_array_equal(X, np.array(VALUES, np.float32))


@pytest.mark.parametrize("frame", [pd.DataFrame, pl.DataFrame])
def test_frames_are_matched_by_name(frame: Any) -> None:
    columns = {"depth": [3.0, 6.5], "colour": ["red", "blue"], "width": [2, 5], "height": [1.0, 4.0]}
    np.testing.assert_array_equal(read_features(frame(columns), NAMES), np.array(VALUES, np.float32))


def test_frames_whose_columns_are_numbers_are_matched_too() -> None:
    read = read_features(pd.DataFrame(VALUES), ("0", "1", "2"))
    np.testing.assert_array_equal(read, np.array(VALUES, np.float32))


@pytest.mark.parametrize("frame", [pd.DataFrame, pl.DataFrame])
def test_a_missing_column_is_named(frame: Any) -> None:
    message = refused(frame({"height": [1.0], "width": [2.0]}))
    assert message == "the frame has no column 'depth'; the model needs height, width, depth"


@pytest.mark.parametrize("frame", [pd.DataFrame, pl.DataFrame])
def test_a_column_of_text_is_named(frame: Any) -> None:
    message = refused(frame({"height": [1.0], "width": ["wide"], "depth": [2.0]}))
    assert "'width'" in message
    assert "not numbers" in message


@pytest.mark.parametrize("frame", [pd.DataFrame, pl.DataFrame])
def test_an_empty_cell_is_named(frame: Any) -> None:
    message = refused(frame({"height": [1.0, 2.0], "width": [1.0, None], "depth": [2.0, 1.0]}))
    assert message.startswith("row 1, column 1 ('width') is nan; every feature must be a finite number")


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_the_first_value_that_is_not_finite_is_named(value: float) -> None:
    X = np.ones((5, 3))
    X[3, 2] = X[4, 0] = value
    assert refused(X) == f"row 3, column 2 ('depth') is {value}; every feature must be a finite number"


def test_a_value_beyond_float32_is_named() -> None:
    X = np.ones((2, 3))
    X[1, 0] = -1e39
    message = refused(X)
    assert "row 1" in message
    assert "'height'" in message
    assert "-1e+39" in message
    assert "float32" in message


def test_the_largest_float32_is_read() -> None:
    largest = float(np.finfo(np.float32).max)
    assert read_features([[largest, -largest, 1e-46]], NAMES).tolist() == [[largest, -largest, 0.0]]


def test_one_row_without_its_brackets() -> None:
    message = refused([1.0, 2.0, 3.0])
    assert "[1, features]" in message
    assert "[row]" in message


@pytest.mark.parametrize(
    ("X", "shape"),
    [
        (np.ones((2, 4)), "[2, 4]"),
        (np.ones((2, 2)), "[2, 2]"),
        (np.ones((0, 3)), "[0, 3]"),
        (np.ones(5), "[5]"),
        (np.ones((2, 3, 1)), "[2, 3, 1]"),
        ([], "[0]"),
        (1.0, "[]"),
        (pd.DataFrame({name: [] for name in NAMES}, dtype=float), "[0, 3]"),
    ],
    ids=str,
)
def test_other_shapes_are_named(X: Any, shape: str) -> None:
    message = refused(X)
    assert f"shape {shape}" in message
    assert "[rows, 3]" in message


@pytest.mark.parametrize(
    "X",
    [
        [["a", "b", "c"]],
        [["1", "2", "3"]],
        np.array(VALUES, complex),
        [[1 + 2j, 0, 0]],
        np.array([["2020-01-01"] * 3], "datetime64[D]"),
        [[None, {}, 1.0]],
        [[1.0, 2.0], [3.0]],
        "features",
        {"height": 1.0},
        object(),
    ],
    ids=[
        "text",
        "digits",
        "complex",
        "complex list",
        "dates",
        "objects",
        "ragged",
        "string",
        "dict",
        "object",
    ],
)
def test_what_is_not_numbers_is_refused(X: Any) -> None:
    assert "not numbers" in refused(X)
