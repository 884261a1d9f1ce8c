from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dropserve_models.training.sources import read_table
from support.sources import Write, refused

GOOD_X, GOOD_Y = np.ones((3, 2)), np.arange(3)


def test_npz(save: Write) -> None:
    table = read_table(save(X=np.arange(6).reshape(3, 2), y=np.array(["u", "v", "u"])))
    assert table.feature_names == ("x_1", "x_2")
    assert (table.targets[0].name, table.targets[0].is_text) == ("y", True)

    names = {"feature_names": np.array(["p", "q"]), "target_names": np.array(["s", "t"])}
    source = save(X=np.arange(6.0).reshape(3, 2), y=np.ones((3, 2)), **names)
    assert [target.name for target in read_table(source).targets] == ["s", "t"]
    table = read_table(source, ["t"])
    assert (table.feature_names, [target.name for target in table.targets]) == (("p", "q"), ["t"])


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"X": GOOD_X}, "has no array 'y'; it has: X"),
        ({"y": GOOD_Y}, "has no array 'X'"),
        ({"X": np.ones(3), "y": GOOD_Y}, "X is [3] and y is [3]"),
        ({"X": GOOD_X, "y": np.arange(4)}, "X is [3, 2] and y is [4]"),
        (
            {"X": np.array([[1, 2], [3, np.inf], [5, 6]]), "y": GOOD_Y},
            "column 'x_2', row 2: inf is not a finite",
        ),
        ({"X": np.array([[1, np.nan]] * 3), "y": GOOD_Y}, "column 'x_2' has no value in any row; drop it"),
        ({"X": np.array([[1, 2], [3, 4], [-1e39, 6]]), "y": GOOD_Y}, "column 'x_1', row 3"),
        ({"X": np.full((3, 2), 1j), "y": GOOD_Y}, "X holds complex128 values"),
        ({"X": GOOD_X, "y": np.array([1, np.inf, 2])}, "column 'y', row 2: the value is inf"),
        ({"X": GOOD_X, "y": np.ones(3, complex)}, "neither numbers nor text"),
        ({"X": GOOD_X, "y": np.array([1, "a", None], object)}, "can't be read as NPZ"),
        (
            {"X": GOOD_X, "y": GOOD_Y, "feature_names": ["a"]},
            "feature_names has 1 different names for 2 features",
        ),
        ({"X": GOOD_X, "y": GOOD_Y, "feature_names": ["a", "a"]}, "feature_names has 1 different names"),
    ],
)
def test_wrong_npz_content(save: Write, arrays: dict[str, Any], message: str) -> None:
    assert message in refused(save(**arrays), ())


def test_text_is_no_npz(write: Write) -> None:
    told = refused(write("no archive", "text.npz"))
    assert told.endswith("text.npz can't be read as NPZ: it is no archive of arrays")


def test_a_single_array_is_no_npz(tmp_path: Path) -> None:
    with (tmp_path / "data.npz").open("wb") as file:
        np.save(file, np.ones(3))
    assert "can't be read as NPZ" in refused(str(tmp_path / "data.npz"))


def test_an_npz_target_that_is_not_there(save: Write) -> None:
    assert "has no column 'z' to be the target; it has: y" in refused(save(X=GOOD_X, y=GOOD_Y), ["z"])
