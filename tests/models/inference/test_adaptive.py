"""Tolerances: rows stop when they are known well enough, and what they then say is true."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from dropserve_models import load
from dropserve_models.errors import InputError
from dropserve_models.inference.device.sums import DeviceSums
from dropserve_models.inference.part import Part
from dropserve_models.inference.runner import Runner
from dropserve_models.model import Model
from dropserve_models.prediction import MonteCarloOptions, Prediction
from support.devices import device_engine_of
from support.onnx_models import mlp, publish
from support.ways import WAYS

NETWORKS = {
    "regression": mlp([6, 24, 24, 1], [0.0, 0.3, 0.3]),
    "softmax": mlp([6, 24, 24, 3], [0.0, 0.2, 0.5], last="Softmax"),
}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Model:
    folder: Path = tmp_path_factory.mktemp("repository")
    return load(publish(folder, "net", NETWORKS["regression"].onnx()), threads=1)


ROWS = np.random.default_rng(3).standard_normal((40, 6)).astype(np.float32) * np.float32(2.0)


def test_every_row_reaches_its_tolerance_or_the_ceiling(model: Model) -> None:
    answer = model.predict(ROWS, passes=400, seed=1, mean_tolerance=0.05)
    assert answer.row_passes is not None
    assert answer.standard_error is not None
    assert answer.std is not None
    reached = answer.standard_error <= 0.05 * answer.std
    assert (reached[:, 0] | (answer.row_passes == 400)).all()
    assert reached.any()
    assert answer.passes == answer.row_passes.max()


def test_rows_take_different_numbers_of_passes(model: Model) -> None:
    answer = model.predict(ROWS, passes=1000, seed=1, std_tolerance=0.06)
    assert answer.row_passes is not None
    assert len(set(answer.row_passes.tolist())) > 1
    assert answer.std_standard_error is not None
    assert answer.std is not None
    assert (answer.std_standard_error <= 0.06 * answer.std)[answer.row_passes < 1000].all()


def test_a_tighter_tolerance_takes_more_passes(model: Model) -> None:
    loose, tight = (model.predict(ROWS, passes=2000, seed=1, mean_tolerance=t) for t in (0.1, 0.03))
    assert loose.row_passes is not None
    assert tight.row_passes is not None
    assert loose.row_passes.mean() < tight.row_passes.mean()


@cache
def truth(name: str) -> Prediction:
    return WAYS["in blocks"](NETWORKS[name].onnx(), ROWS).ask(ROWS[:8], MonteCarloOptions(20_000, 99))


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("way", ["in blocks", "thinned, no seed"])
def test_the_answer_is_that_close_to_the_truth(way: str, name: str) -> None:
    """In the root mean square over seeds; and what it says of its errors is not far from what they are."""
    computing, options = WAYS[way](NETWORKS[name].onnx(), ROWS), MonteCarloOptions(2000)
    for quantity, error, asked in (
        ("mean", "standard_error", replace(options, mean_tolerance=0.03)),
        ("std", "std_standard_error", replace(options, std_tolerance=0.06)),
    ):
        answers = [computing.ask(ROWS[:8], replace(asked, seed=seed)) for seed in range(30)]
        std = truth(name).std
        assert std is not None
        errors = np.stack([getattr(answer, quantity) for answer in answers]) - getattr(truth(name), quantity)
        told = np.stack([getattr(answer, error) for answer in answers]) / std
        mean_square = np.square(errors / std).mean()
        wanted = asked.mean_tolerance or asked.std_tolerance or 0.0
        assert np.sqrt(mean_square) < 1.1 * wanted, quantity
        assert 0.4 < np.square(told).mean() / mean_square < 1.2, error


def test_no_row_stops_at_two_strata_that_happen_to_be_equal(model: Model) -> None:
    answer = model.predict(ROWS, passes=400, seed=1, mean_tolerance=10.0)
    assert answer.row_passes is not None
    assert (answer.row_passes == 40).all()


def test_rows_that_are_done_stop_costing(model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only those that are left are computed, padded to a multiple of 16."""
    columns: list[int] = []
    compute = Runner.run

    def counted(self: Runner, boundary: Mapping[str, torch.Tensor], *args: Any, **options: Any) -> Any:
        columns.append(next(iter(boundary.values())).shape[-1])
        return compute(self, boundary, *args, **options)

    monkeypatch.setattr(Runner, "run", counted)
    answer = model.predict(ROWS[:32], passes=400, seed=1, std_tolerance=0.06)
    assert answer.row_passes is not None
    left = [int((answer.row_passes > done).sum()) for done in range(0, 400, 20)]
    assert columns == [-(-rows // 16) * 16 for rows in left if rows]
    assert columns[-1] < columns[0]


def test_tiles_of_a_device_that_are_done_stop_costing(monkeypatch: pytest.MonkeyPatch) -> None:
    tiles: list[int] = []
    add = DeviceSums.add

    def counted(self: DeviceSums, block: Any, boundary: Any, columns: Sequence[Any]) -> None:
        tiles.append(len(columns))
        add(self, block, boundary, columns)

    monkeypatch.setattr(DeviceSums, "add", counted)
    x = np.random.default_rng(4).standard_normal((1000, 6)).astype(np.float32)
    answer = device_engine_of(NETWORKS["regression"].onnx()).run(
        x, MonteCarloOptions(400, 1, std_tolerance=0.06)
    )
    assert answer.row_passes is not None
    left = [int((answer.row_passes > done).sum()) for done in range(0, 400, 20)]
    assert tiles == [-(-rows // 256) for rows in left if rows]
    assert tiles[-1] < tiles[0]


def test_what_is_left_of_some_rows() -> None:
    values = torch.arange(40.0).expand(3, 1, -1)
    part = Part.of({"x": values}, 0, 40)
    done = np.zeros(40, np.bool_)
    assert part.without(done) is part
    assert part.without(~done) is None
    done[[0, 5, *range(10, 40)]] = True
    once = part.without(done)
    assert once is not None
    assert once.boundary["x"].shape == (3, 1, 16), "padded"
    assert once.chosen(once.boundary["x"], 1)[0, 0].tolist() == [1, 2, 3, 4, 6, 7, 8, 9]
    twice = once.without(np.array([True] * 7 + [False]))
    assert twice is not None
    assert isinstance(twice.rows, np.ndarray)
    assert twice.rows.tolist() == [9], "the places in the request stay"
    assert twice.chosen(twice.boundary["x"], 1)[0, 0].tolist() == [9]


def test_a_rows_answer_does_not_depend_on_the_other_rows(model: Model) -> None:
    whole = model.predict(ROWS, passes=500, seed=5, mean_tolerance=0.05)
    for part in (slice(0, 1), slice(3, 20), slice(39, 40)):
        alone = model.predict(ROWS[part], passes=500, seed=5, mean_tolerance=0.05)
        assert alone.row_passes is not None
        assert whole.row_passes is not None
        assert alone.row_passes.tolist() == whole.row_passes[part].tolist()
        assert alone.mean.tobytes() == whole.mean[part].tobytes()
        assert alone.variance is not None
        assert whole.variance is not None
        assert alone.variance.tobytes() == whole.variance[part].tobytes()


def test_a_converged_row_equals_a_run_of_its_own_passes(model: Model) -> None:
    adaptive = model.predict(ROWS, passes=500, seed=5, mean_tolerance=0.05)
    assert adaptive.row_passes is not None
    for row in (0, 7, 30):
        fixed = model.predict(ROWS[[row]], passes=int(adaptive.row_passes[row]), seed=5)
        np.testing.assert_allclose(adaptive.mean[row], fixed.mean[0], rtol=1e-5)


@pytest.mark.parametrize(
    ("options", "field"),
    [
        ({"mean_tolerance": 0.0}, "mean_tolerance"),
        ({"std_tolerance": -1.0}, "std_tolerance"),
        ({"mean_tolerance": float("nan")}, "mean_tolerance"),
        ({"mean_tolerance": 0.1, "quantiles": [0.5]}, "quantiles"),
        ({"mean_tolerance": 0.1, "return_samples": True}, "return_samples"),
    ],
)
def test_what_can_not_be_asked_is_refused(model: Model, options: dict[str, object], field: str) -> None:
    with pytest.raises(InputError) as caught:
        model.predict(ROWS, passes=100, **options)  # type: ignore[arg-type]  # wrong on purpose
    assert caught.value.field == field


@pytest.mark.parametrize(
    "options",
    [MonteCarloOptions(2000, 1, mean_tolerance=1e308), MonteCarloOptions(2000, 1, std_tolerance=1e308)],
    ids=["mean", "std"],
)
def test_a_tolerance_may_be_as_large_as_a_float(options: MonteCarloOptions) -> None:
    answer = WAYS["in blocks"](NETWORKS["softmax"].onnx(), ROWS).ask(ROWS[:8], options)
    assert answer.row_passes is not None
    assert (answer.row_passes == 40).all()
