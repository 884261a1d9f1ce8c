from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from dropserve_models.training.config import TrainingConfig
from dropserve_models.training.crossvalidate import make_folds
from dropserve_models.training.losses import GaussianNoise
from dropserve_models.training.pipelines import Fit, Fitted, fit_pipelines
from dropserve_models.training.search.calibrated import calibrated
from dropserve_models.training.search.scoring import monte_carlo_scores
from dropserve_models.training.sources import read_table
from dropserve_models.training.split import Split
from dropserve_models.training.table import Table
from dropserve_models.training.task import Goal, recognise

SEED = np.random.SeedSequence(5)


def folds_of(data: str, **options: object) -> tuple[Table, Goal, list[Fitted], list[np.ndarray]]:
    table = read_table(data)
    goal = recognise(table)
    config = TrainingConfig.from_mapping({"hidden": (8,), "epochs": 20, "hidden_drop": 0.2} | options)
    parts = make_folds(goal, 3, 1, np.random.default_rng(0))
    fits = [Fit(Split(rows, rows[:0]), config, np.random.SeedSequence(0)) for rows, _ in parts]
    return table, goal, fit_pipelines(table, goal, fits, device="cpu"), [test for _, test in parts]


def too_sure(one: Fitted, factor: float) -> Fitted:
    """The same, with its noise variance, or its logits' temperature, too small by a factor."""
    pipeline = one.pipeline
    if pipeline.target_scaling is None:
        return replace(one, pipeline=pipeline.tempered(1.0 / factor))
    network = pipeline.network.holding(pipeline.network.parameters.clone())
    network.biases[-1][..., 1] -= np.log(factor)
    return replace(one, pipeline=replace(pipeline, network=network))


@pytest.mark.parametrize("data", ["sklearn:diabetes", "sklearn:breast_cancer"])
def test_what_was_too_sure_of_itself_is_judged_as_if_it_were_not(data: str) -> None:
    table, goal, models, rows = folds_of(data)
    sure = [too_sure(one, 20.0) for one in models]

    def score(judged: list[Fitted]) -> float:
        scores = monte_carlo_scores(judged, rows, table, goal, 30, SEED)
        return float(np.mean([one["log_likelihood"] for one in scores]))

    right = score(calibrated(models, rows, [0, 0, 0], table, goal, SEED))
    assert score(sure) < right - 0.1
    assert score(calibrated(sure, rows, [0, 0, 0], table, goal, SEED)) == pytest.approx(right, abs=0.05)


def test_a_factor_comes_from_the_other_folds_of_the_same_setting() -> None:
    table, goal, models, rows = folds_of("sklearn:diabetes")
    before = calibrated(models, rows, ["a", "a", "b"], table, goal, SEED)
    models[1] = too_sure(models[1], 20.0)
    after = calibrated(models, rows, ["a", "a", "b"], table, goal, SEED)
    scales = [
        [float(one.pipeline.noise_scale[0]) for one in some if one.pipeline.noise_scale is not None]
        for some in (before, after)
    ]
    assert scales[1][0] > 3.0 * scales[0][0]
    assert scales[1][1:] == scales[0][1:]


def test_without_a_density_there_is_nothing_to_calibrate() -> None:
    table, goal, models, rows = folds_of("sklearn:diabetes", loss="mse")
    assert not isinstance(models[0].pipeline.objective, GaussianNoise)
    assert calibrated(models, rows, [0, 0, 0], table, goal, SEED) == models


@pytest.mark.parametrize("data", ["sklearn:diabetes", "sklearn:breast_cancer"])
def test_rows_that_can_not_be_answered_are_no_failure(data: str) -> None:
    table, goal, models, rows = folds_of(data, epochs=1)
    for some in rows:
        table.features[some[0], :2] = 3e38
    for one in calibrated(models, rows, [0, 0, 0], table, goal, SEED):
        assert bool(one.pipeline.network.parameters.isfinite().all())
        assert one.pipeline.noise_scale is None or np.isfinite(one.pipeline.noise_scale).all()
