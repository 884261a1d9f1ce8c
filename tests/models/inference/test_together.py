"""Requests computed together: each as it would be alone, and none with another's masks."""

from __future__ import annotations

import numpy as np
import pytest

from dropserve_models import MonteCarloOptions, load
from dropserve_models.model import Model
from support.onnx_models import mlp, publish


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Model:
    folder = tmp_path_factory.mktemp("repository")
    return load(
        publish(folder, "net", mlp([8, 32, 32, 3], [0.1, 0.3, 0.3], last="Softmax").onnx()), threads=1
    )


def requests(number: int, seed: int = 0) -> list[np.ndarray]:
    rng = np.random.default_rng(seed)
    return [rng.standard_normal((int(rng.integers(1, 4)), 8)).astype(np.float32) for _ in range(number)]


@pytest.mark.parametrize("masks", ["stratified", "independent"])
def test_answers_have_the_shape_and_the_distribution_of_those_computed_alone(
    model: Model, masks: str
) -> None:
    options = MonteCarloOptions(passes=40, masks=masks)  # type: ignore[arg-type]  # one of the two literals
    asked = requests(5)
    truth = [model.predict(part, passes=20_000, seed=1) for part in asked]
    errors = []
    for _ in range(60):
        for answer, true in zip(model.run_together(asked, options), truth, strict=True):
            assert answer.mean.shape == true.mean.shape
            assert answer.passes == 40
            assert answer.standard_error is not None
            errors.append((answer.mean - true.mean)[:, 1:] / answer.standard_error[:, 1:])
    scores = np.concatenate(errors)
    # Bias would shift the scores, a wrong standard error would stretch them; 300 draws, wide bounds.
    assert abs(scores.mean()) < 0.5
    assert 0.5 < np.median(np.abs(scores)) < 1.0


def test_requests_do_not_share_their_masks(model: Model) -> None:
    row = requests(1)[0][:1]
    options = MonteCarloOptions(passes=20)
    truth = model.predict(row, passes=20_000, seed=1).mean
    errors = np.array(
        [[answer.mean - truth for answer in model.run_together([row, row], options)] for _ in range(400)]
    )[:, :, 0, 1]
    correlation = np.corrcoef(errors[:, 0], errors[:, 1])[0, 1]
    assert abs(correlation) < 0.2  # four standard errors


def test_requests_never_have_the_very_masks_of_another(model: Model) -> None:
    row = requests(1)[0][:1]
    for number in (2, 40, 80):
        answers = model.run_together([row] * number, MonteCarloOptions(passes=20))
        assert len({answer.mean.tobytes() for answer in answers}) == number


def test_samples_and_quantiles_are_each_request_s_own(model: Model) -> None:
    asked = requests(3)
    options = MonteCarloOptions(passes=30, quantiles=(0.1, 0.9), return_samples=True)
    for part, answer in zip(asked, model.run_together(asked, options), strict=True):
        assert answer.samples is not None
        assert answer.quantiles is not None
        assert answer.samples.shape == (30, len(part), 3)
        np.testing.assert_allclose(answer.samples.mean(axis=0), answer.mean, rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(
            np.quantile(answer.samples, [0.1, 0.9], axis=0), answer.quantiles, atol=1e-6
        )


def test_what_is_better_alone_is_told(model: Model) -> None:
    small = MonteCarloOptions(passes=20)
    assert model.together(1, small) == model.together(2, small) is not None
    assert model.together(1, MonteCarloOptions(passes=30)) != model.together(1, small)
    assert model.together(1, MonteCarloOptions(passes=20, seed=3)) is None
    assert model.together(1, MonteCarloOptions(passes=20, mean_tolerance=0.1)) is None
    assert model.together(100_000, small) is None
