"""Tolerances: rows stop when they are known well enough, and what they then say is true."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from dropserve_models import load
from dropserve_models.errors import InputError
from dropserve_models.model import Model
from support.onnx_models import mlp, publish


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Model:
    folder: Path = tmp_path_factory.mktemp("repository")
    return load(publish(folder, "net", mlp([6, 24, 24, 1], [0.0, 0.3, 0.3]).onnx()), threads=1)


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


def test_the_answer_is_that_close_to_the_truth(model: Model) -> None:
    truth = model.predict(ROWS, passes=20_000, seed=99)
    assert truth.std is not None
    errors = []
    for seed in range(40):
        answer = model.predict(ROWS, passes=2000, seed=seed, mean_tolerance=0.06)
        errors.append((answer.mean - truth.mean) / truth.std)
    # Stopping at the first sign of convergence favours underestimated errors, though not by much.
    assert float(np.sqrt(np.mean(np.square(errors)))) < 1.5 * 0.06


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
