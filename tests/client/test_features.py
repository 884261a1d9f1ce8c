from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from dropserve_client import InputError
from dropserve_client.features import column_names, read_array, read_frame

NAMES = ("a", "b")


class Frame:
    """The least that the SDK asks of a frame."""

    def __init__(self, **columns: Any) -> None:
        self._columns = columns

    @property
    def columns(self) -> list[Any]:
        return list(self._columns)

    def __getitem__(self, name: str) -> Any:
        return self._columns[name]


def read(X: Any, feature_names: tuple[str, ...] = NAMES) -> Any:
    names = column_names(X)
    return read_array(X) if names is None else read_frame(X, names, feature_names)


def refusal(X: Any) -> str:
    with pytest.raises(InputError) as caught:
        read(X)
    assert caught.value.field == "inputs"
    assert caught.value.code is None
    message = str(caught.value)
    assert "\n" not in message
    return message


@pytest.mark.parametrize(
    "X",
    [
        [[1, 2], [3, 4]],
        ((1.0, 2.0), (3.0, 4.0)),
        [np.array([1, 2]), np.array([3, 4])],
        np.array([[1, 2], [3, 4]], ">f8"),
        np.array([[1, 2], [3, 4]], np.float16),
        np.array([[1, 2], [3, 4]], np.uint8),
        np.array([[1, 3], [2, 4]], np.float64).T,
        np.array([[1, 9, 2, 9], [3, 9, 4, 9]])[:, ::2],
        np.ma.masked_array([[1, 2], [3, 4]], mask=False),
    ],
    ids=lambda X: f"{type(X).__name__} {getattr(X, 'dtype', '')}",
)
def test_reads_whatever_numpy_reads(X: Any) -> None:
    features = read(X)
    assert type(features) is np.ndarray
    assert features.dtype == np.float32
    assert features.flags.c_contiguous
    np.testing.assert_array_equal(features, [[1, 2], [3, 4]])


def test_booleans_are_0_and_1() -> None:
    np.testing.assert_array_equal(read([[True, False]]), [[1, 0]])


def test_float32_in_order_is_not_copied() -> None:
    X = np.ones((3, 2), np.float32)
    assert read(X) is X


def test_one_row_as_a_vector_is_refused_with_the_remedy() -> None:
    message = refusal(np.zeros(30))
    assert "(30,)" in message
    assert "X.reshape(1, -1)" in message


@pytest.mark.parametrize("X", [np.zeros((0, 3)), np.zeros((3, 0)), []])
def test_empty_input_is_refused(X: Any) -> None:
    assert "empty" in refusal(X) or "(0,)" in refusal(X)


def test_more_than_two_dimensions_are_refused() -> None:
    assert "(1, 2, 2)" in refusal(np.zeros((1, 2, 2)))


@pytest.mark.parametrize(
    ("X", "kind"),
    [
        ([["a", "b"]], "strings"),
        ([["1", "2"]], "strings"),
        (np.array([[b"1"]]), "bytes"),
        (np.array([[1, None]]), "objects"),
        ({"a": 1}, "objects"),
        (np.array([[1j]]), "complex"),
        (np.array([["2026-01-01"]], "datetime64[D]"), "dates"),
        (np.array([[(1, 2)]], [("x", "i4"), ("y", "i4")]), "('x'"),
        ([[2**70, 1]], "objects"),
    ],
)
def test_what_is_not_numbers_is_refused(X: Any, kind: str) -> None:
    assert kind in refusal(X)


def test_ragged_rows_are_refused() -> None:
    assert "can't be read as an array" in refusal([[1, 2], [3]])


def test_an_array_that_fails_to_convert_is_refused_with_its_reason() -> None:
    class OnAnotherDevice:
        def __array__(self, dtype: object = None, copy: object = None) -> Any:
            raise TypeError("copy the tensor to host memory first\nand so on")

    assert refusal(OnAnotherDevice()).endswith("copy the tensor to host memory first")


@pytest.mark.parametrize(
    ("value", "told"), [(np.nan, "nan"), (-np.inf, "-inf"), (1e39, "1e+39, beyond the range of float32")]
)
def test_what_is_not_finite_in_float32_is_named_by_row_and_column(value: float, told: str) -> None:
    X = np.zeros((5, 3))
    X[3, 1] = X[4, 0] = value
    assert refusal(X) == f"features must be finite: row 3, column 1 is {told} (counted from 0)"


def test_masked_values_are_missing_values() -> None:
    X = np.ma.masked_array([[1, 2], [3, 4]], mask=[[False, False], [True, False]])
    assert "row 1, column 0 is nan" in refusal(X)


@given(arrays.arrays(np.float64, arrays.array_shapes(min_dims=2, max_dims=2), elements=st.floats()))
def test_answers_exactly_the_float32_values_or_refuses(X: np.ndarray[Any, Any]) -> None:
    with np.errstate(over="ignore"):
        expected = X.astype(np.float32)
    if np.isfinite(expected).all():
        np.testing.assert_array_equal(read(X), expected)
    else:
        refusal(X)


def test_a_frames_columns_are_matched_by_name_and_others_ignored() -> None:
    frame = Frame(target=["yes", "no"], b=[2, 4], a=np.array([1.0, 3.0]))
    np.testing.assert_array_equal(read(frame), [[1, 2], [3, 4]])


def test_missing_columns_are_named() -> None:
    with pytest.raises(InputError) as caught:
        read(Frame(a=[1]), tuple("abcdefg"))
    message = str(caught.value)
    assert message.startswith("X has no column 'b', 'c', 'd', 'e', 'f' and 1 more;")
    assert "wants 7 columns" in message


def test_a_bad_value_in_a_frame_is_named_by_its_column() -> None:
    assert "row 1, column 'b' is nan" in refusal(Frame(a=[1, 2], b=[1, np.nan]))
    assert "'b' must hold numbers" in refusal(Frame(a=[1, 2], b=["x", "y"]))


def test_a_frame_without_rows_is_refused() -> None:
    assert refusal(Frame(a=np.zeros(0), b=np.zeros(0))) == "X has no rows"


def test_columns_of_unequal_length_are_refused() -> None:
    assert "length" in refusal(Frame(a=[1, 2], b=[1]))


def test_a_frame_with_some_names_only_is_refused() -> None:
    class Half(Frame):
        @property
        def columns(self) -> list[Any]:
            return ["a", 7]

    assert "7" in refusal(Half())


def test_a_lazy_frame_is_to_be_collected() -> None:
    class Lazy(Frame):
        def collect(self) -> None: ...

    assert "X.collect()" in refusal(Lazy(a=[1], b=[2]))


class TestPandas:
    pandas = property(lambda self: pytest.importorskip("pandas"))

    def test_columns_by_name(self) -> None:
        frame = self.pandas.DataFrame({"b": [2, 4], "label": ["x", "y"], "a": [1.5, 3.5]})
        np.testing.assert_array_equal(read(frame), [[1.5, 2], [3.5, 4]])

    def test_without_names_by_position(self) -> None:
        frame = self.pandas.DataFrame([[1, 2], [3, 4]])
        np.testing.assert_array_equal(read(frame), [[1, 2], [3, 4]])

    def test_nullable_columns(self) -> None:
        frame = self.pandas.DataFrame({"a": self.pandas.array([1, 3], "Int64"), "b": [True, False]})
        np.testing.assert_array_equal(read(frame), [[1, 1], [3, 0]])

    def test_missing_values(self) -> None:
        frame = self.pandas.DataFrame({"a": self.pandas.array([1, None], "Int64"), "b": [1, 2]})
        assert "column 'a'" in refusal(frame)
        assert "missing" in refusal(frame) or "nan" in refusal(frame)

    def test_strings_and_categories(self) -> None:
        for column in (
            ["1", "2"],
            self.pandas.Categorical(["x", "y"]),
            self.pandas.to_datetime(["2026-01-01"] * 2),
        ):
            assert "column 'b' must hold numbers" in refusal(
                self.pandas.DataFrame({"a": [1, 2], "b": column})
            )

    def test_a_column_twice(self) -> None:
        frame = self.pandas.DataFrame([[1, 2, 3]], columns=["a", "b", "b"])
        assert "more than one column 'b'" in refusal(frame)

    def test_columns_called_like_methods(self) -> None:
        frame = self.pandas.DataFrame({"collect": [1.0], "column_names": [2.0], "a": [3.0]})
        np.testing.assert_array_equal(read(frame, ("collect", "column_names")), [[1, 2]])

    def test_one_row_taken_out_is_refused_with_the_remedy(self) -> None:
        frame = self.pandas.DataFrame({"a": [1.0], "b": [2.0]})
        assert "X.reshape(1, -1)" in refusal(frame.iloc[0])


class TestPolars:
    polars = property(lambda self: pytest.importorskip("polars"))

    def test_columns_by_name(self) -> None:
        frame = self.polars.DataFrame({"b": [2, 4], "label": ["x", "y"], "a": [1.5, 3.5]})
        np.testing.assert_array_equal(read(frame), [[1.5, 2], [3.5, 4]])

    def test_missing_values(self) -> None:
        assert "column 'a' is nan" in refusal(self.polars.DataFrame({"a": [1, None], "b": [1, 2]}))

    def test_strings(self) -> None:
        assert "column 'b' must hold numbers" in refusal(self.polars.DataFrame({"a": [1], "b": ["2"]}))

    def test_lazy(self) -> None:
        assert "X.collect()" in refusal(self.polars.LazyFrame({"a": [1], "b": [2]}))


def test_an_arrow_table() -> None:
    pyarrow = pytest.importorskip("pyarrow")
    np.testing.assert_array_equal(read(pyarrow.table({"b": [2, 4], "a": [1.0, 3.0]})), [[1, 2], [3, 4]])


def test_a_torch_tensor() -> None:
    torch = pytest.importorskip("torch")
    np.testing.assert_array_equal(read(torch.ones(2, 2)), np.ones((2, 2)))
    assert "can't be read as an array" in refusal(torch.ones(2, 2, requires_grad=True))
