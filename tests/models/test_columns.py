"""How values become the numbers that travel: the library and the SDK, which share no code, agree."""

from __future__ import annotations

from collections.abc import Callable
from datetime import date
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest

import dropserve_client.features
import dropserve_models.features
from dropserve_client import InputError as ClientError
from dropserve_client import columns as client
from dropserve_models import columns as models
from dropserve_models.errors import InputError

NAN = np.nan
NAMES = ("size", "colour", "wheels")
COLUMNS = (("number", (), True), ("category", ("blue", "red"), False), ("category", ("3", "4", "0.1"), True))

Read = Callable[[Any], Any]


def by_the_library(X: Any, columns: Any = COLUMNS) -> Any:
    return dropserve_models.features.read_features(X, NAMES, [models.Column(*column) for column in columns])


def by_the_sdk(X: Any, columns: Any = COLUMNS) -> Any:
    kinds = [dropserve_client.Column(*column) for column in columns]
    names = dropserve_client.features.column_names(X)
    if names is None:
        return dropserve_client.features.read_array(X, kinds)
    return dropserve_client.features.read_frame(X, names, NAMES, kinds)


both = pytest.mark.parametrize("read", [by_the_library, by_the_sdk])


@pytest.mark.parametrize("where", [models, client])
@pytest.mark.parametrize(
    ("value", "code"),
    [
        ("red", 1), (" red ", 1), ("Red", -1), ("green", -1), (np.str_("blue"), 0), ("3", 2), ("3.0", 2),
        ("03", 2), (3, 2), (3.0, 2), (np.float32(3), 2), (np.int8(3), 2), (0.5, 4), (np.float32(0.1), 5),
        (0.1, 5), ("0.10", 5), (7, -1), (True, 3), (np.False_, -1), (None, NAN), (NAN, NAN), (pd.NA, NAN),
        (pd.NaT, NAN), ("", NAN), ("n/a", NAN), ("?", NAN), (np.inf, -1), ("inf", -1), (10**400, -1),
        (date(2026, 1, 1), -1), (b"red", -1), ([1, 2], -1), (np.array([1, 2]), -1),
    ],
)  # fmt: skip
def test_codes(where: Any, value: object, code: float) -> None:
    column = where.Column("category", ("blue", "red", "3", "true", "0.5", "0.1"))
    values = np.empty(1, object)
    values[0] = value
    np.testing.assert_array_equal(where.codes(values, column), [code])


FRAME = {
    "size": [1.5, None, 2.0],
    "wheels": [4, 3, None],
    "colour": ["red", "green", "blue"],
    "more": [1, 2, 3],
}
CODES = [[1.5, 1, 1], [NAN, -1, 0], [2, 0, NAN]]


@both
@pytest.mark.parametrize(
    "X",
    [
        pd.DataFrame(FRAME),
        pd.DataFrame(FRAME).astype({"colour": "category", "wheels": "Int64", "size": "Float32"}),
        pd.DataFrame(FRAME).astype({"colour": "string", "wheels": "category", "size": object}),
        pl.DataFrame(FRAME),
        pl.DataFrame(FRAME, schema_overrides={"colour": pl.Categorical, "wheels": pl.Int8}),
        [[1.5, "red", 4], [None, "green", 3], [2, "blue", None]],
        np.array([["1.5", "red", "4"], ["nan", "green", "3"], ["2", "blue", "NA"]]),
        np.array(CODES),
        np.array(CODES, np.float32),
    ],
    ids=lambda X: type(X).__module__.partition(".")[0],
)
def test_frames_and_objects_by_value_numbers_as_codes(read: Read, X: Any) -> None:
    found = read(X)
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found, np.array(CODES, np.float32))


def test_arrow_tables() -> None:
    table = pa.table(FRAME)
    np.testing.assert_array_equal(by_the_sdk(table), CODES)
    columns = [
        table[name].dictionary_encode() if name == "colour" else table[name] for name in table.column_names
    ]
    np.testing.assert_array_equal(by_the_sdk(pa.table(columns, table.column_names)), CODES)


@both
@pytest.mark.parametrize(
    ("X", "told"),
    [
        ([[1.0, NAN, 0.0]], "nan"),
        ([[1.0, np.inf, 0.0]], "inf"),
        ([["big", "red", "3"]], "numbers"),
        ([[1.0, "red"]], ""),
        ([["1", "red"]], ""),
        (pd.DataFrame({"size": [1.0], "colour": [None], "wheels": [3]}), ""),
        (pd.DataFrame({"size": ["big"], "colour": ["red"], "wheels": [3]}), "'size'"),
    ],
)
def test_what_the_columns_do_not_accept_is_refused(read: Read, X: Any, told: str) -> None:
    with pytest.raises((InputError, ClientError)) as caught:
        read(X)
    assert told in str(caught.value)
    assert "\n" not in str(caught.value)
    assert vars(caught.value)["field"] == "inputs"
