"""What is read and written beside the evaluation: learning curves, strange rows, whole files."""

from __future__ import annotations

import json
import os
import stat
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dropserve_models.errors import ReportError
from dropserve_models.evaluation.learning import read_learning_curve
from dropserve_models.evaluation.strange import scaled, shuffled
from dropserve_models.evaluation.writing import check_writable, write_whole

EPOCHS = [
    {"number": 1, "learning_rate": 0.1, "loss": 2.0, "validation_loss": 2.5, "score": 0.1},
    {"number": 2, "learning_rate": 0.1, "loss": 1.0, "validation_loss": 1.5, "score": 0.4},
]
GOOD: dict[str, Any] = {"score": "r2", "kept": EPOCHS[1], "epochs": EPOCHS}


def test_a_learning_curve(tmp_path: Path) -> None:
    (tmp_path / "metrics.json").write_text(json.dumps(GOOD))
    curve = read_learning_curve(tmp_path)
    assert curve is not None
    assert (curve.epochs, curve.loss, curve.validation_loss) == ([1, 2], [2.0, 1.0], [2.5, 1.5])
    assert (curve.score, curve.metric, curve.kept) == ([0.1, 0.4], "r2", 2)


@pytest.mark.parametrize(
    "content",
    [
        "", "{", "[]", "null", json.dumps(GOOD | {"epochs": []}),
        json.dumps(GOOD | {"epochs": [{"number": 1}]}),
        json.dumps(GOOD | {"epochs": [EPOCHS[0] | {"loss": float("nan")}]}), json.dumps(GOOD | {"kept": {}}),
        json.dumps(GOOD | {"epochs": [EPOCHS[0], EPOCHS[1] | {"score": None}]}), "[" * 100_000,
    ],
    ids=range(10),
)  # fmt: skip
def test_what_is_no_learning_curve(content: str, tmp_path: Path) -> None:
    (tmp_path / "metrics.json").write_text(content)
    assert read_learning_curve(tmp_path) is None


def test_no_learning_curve_is_read_from_elsewhere(tmp_path: Path) -> None:
    assert read_learning_curve(tmp_path) is None
    inside = tmp_path / "1"
    inside.mkdir()
    (tmp_path / "metrics.json").write_text(json.dumps(GOOD))
    (inside / "metrics.json").symlink_to(tmp_path / "metrics.json")
    assert read_learning_curve(inside) is None


def test_shuffled_rows_keep_every_column() -> None:
    x = np.random.default_rng(0).normal(size=(50, 3)).astype(np.float32)
    columns = {"a": x[:, 0], "b": x[:, 1], "c": np.array(list("uv") * 25, object)}
    made = shuffled(columns, 1)
    for name, values in columns.items():
        assert sorted(made[name]) == sorted(values)
        assert (made[name] != values).any()
        np.testing.assert_array_equal(made[name], shuffled(columns, 1)[name])
    assert (made["a"] != shuffled(columns, 2)["a"]).any()
    assert (np.argsort(made["a"]) != np.argsort(made["b"])).any()


def test_scaled_rows_are_farther_from_the_mean() -> None:
    x = np.random.default_rng(0).normal(5.0, 1.0, size=(50, 3)).astype(np.float32)
    columns = {"a": x[:, 0], "b": x[:, 1], "c": x[:, 2]}
    made = scaled(columns, 3.0, {"a", "b"})
    for name in "ab":
        np.testing.assert_allclose(made[name].mean(), columns[name].mean(), rtol=1e-5)
        np.testing.assert_allclose(made[name].std(), 3.0 * columns[name].std(), rtol=1e-4)
    assert made["c"] is columns["c"]
    x[0, 0] = np.nan
    assert np.isnan(scaled(columns, 3.0, {"a"})["a"]).sum() == 1


def test_a_file_is_replaced_in_one_step(tmp_path: Path) -> None:
    path = tmp_path / "report.json"
    path.write_text("former")
    with path.open() as reader:
        write_whole(path, b"new")
        assert reader.read() == "former"
    assert path.read_bytes() == b"new"
    assert stat.S_IMODE(path.stat().st_mode) & 0o600 == 0o600
    assert os.listdir(tmp_path) == ["report.json"]


def test_a_link_stays_one(tmp_path: Path) -> None:
    (tmp_path / "kept").mkdir()
    (tmp_path / "report.json").symlink_to(tmp_path / "kept" / "report.json")
    write_whole(tmp_path / "report.json", b"new")
    assert (tmp_path / "report.json").is_symlink()
    assert (tmp_path / "kept" / "report.json").read_bytes() == b"new"


def test_a_full_disk_leaves_what_was_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    path = tmp_path / "report.json"
    path.write_text("former")
    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(ReportError, match="No space left on device"):
        write_whole(path, b"new")
    assert path.read_text() == "former"
    assert os.listdir(tmp_path) == ["report.json"]


def test_what_can_t_be_written_is_told_beforehand(tmp_path: Path) -> None:
    check_writable(tmp_path / "new.json")
    check_writable("/dev/null")
    write_whole("/dev/null", b"gone")
    assert Path("/dev/null").is_char_device()
    with pytest.raises(ReportError, match="there is no folder"):
        check_writable(tmp_path / "none" / "new.json")
    with pytest.raises(ReportError, match="it is a folder"):
        check_writable(tmp_path)
