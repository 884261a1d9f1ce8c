from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from dropserve_models import load
from dropserve_models.training.arrays import table_from_arrays
from dropserve_models.training.config import TrainingConfig
from dropserve_models.training.job import Job
from dropserve_models.training.levelling import level_off
from dropserve_models.training.pipelines import layout_of
from dropserve_models.training.trainer import train


def test_numbers_level_off_at_the_limit() -> None:
    x = np.array([0, 0.01, 1, -5, 20, -1e30, np.inf, np.nan], np.float32)
    found = level_off(x, 5.0)
    expected = [0, 0.00999998, 0.9805807, -3.5355339, 4.8507125, -5, 5, np.nan]
    np.testing.assert_allclose(found, expected, rtol=1e-6)
    assert found.dtype == np.float32
    np.testing.assert_array_equal(level_off(x, 0.0), x)


@pytest.mark.parametrize(
    ("options", "limit"),
    [({}, 5.0), ({"level_off": 2.0}, 2.0), ({"level_off": 0.0}, 0.0), ({"hidden": ()}, 0.0)],
)
def test_a_linear_model_stays_linear(options: dict[str, object], limit: float) -> None:
    table = table_from_arrays(np.ones((3, 2)), np.ones((3, 1)), ("a", "b"), ("y",))
    assert layout_of(table, TrainingConfig.from_mapping(options)).limit == limit


def test_a_slip_of_the_pen_is_not_followed_to_wherever_it_leads(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    X = random.normal(size=(300, 2))
    y = X[:, 0] + 0.1 * random.normal(size=300)
    np.savez(tmp_path / "data.npz", X=X, y=y)
    answers = []
    for limit in (0.0, 5.0):
        config = TrainingConfig(hidden=(16,), epochs=30, level_off=limit, calibration="none")
        folder = train(Job(str(tmp_path / "data.npz"), "m", tmp_path, config=config)).folder
        model = load(folder, device="cpu")
        answers.append(model.predict(np.array([[100.0, 0.0], [1.0, 0.0]])).mean[:, 0])
    far, near = np.array(answers).T
    assert abs(far[0]) > 30.0
    assert abs(far[1]) < 7.0
    np.testing.assert_allclose(near, 1.0, atol=0.2)
