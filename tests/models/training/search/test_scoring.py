from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch

from dropserve_models.training.config import TrainingConfig
from dropserve_models.training.masks import MaskStream
from dropserve_models.training.metrics import metrics_of
from dropserve_models.training.pipelines import Fit, Fitted, fit_pipelines
from dropserve_models.training.randomness import derive
from dropserve_models.training.search import scoring
from dropserve_models.training.search.scoring import monte_carlo_scores
from dropserve_models.training.sources import read_table
from dropserve_models.training.split import Split, split_rows
from dropserve_models.training.table import Table
from dropserve_models.training.task import Goal, recognise

SEED = np.random.SeedSequence(3)


def fitted(
    data: str, fractions: list[float], categorical: tuple[str, ...] = (), **options: Any
) -> tuple[Table, Goal, list[Fitted]]:
    table = read_table(data, categorical=categorical)
    goal = recognise(table)
    fits = []
    for number, fraction in enumerate(fractions):
        split = split_rows(goal, fraction, np.random.default_rng(number))
        config = TrainingConfig.from_mapping({"hidden": (8,), "epochs": 3} | options)
        fits.append(Fit(Split(split.training, split.training[:0]), config, np.random.SeedSequence(number)))
    return table, goal, fit_pipelines(table, goal, fits, device="cpu")


def held_out(table: Table, models: list[Fitted]) -> list[np.ndarray]:
    return [np.setdiff1d(np.arange(table.rows), one.fit.split.training) for one in models]


@pytest.mark.parametrize(
    ("data", "options"),
    [
        ("sklearn:diabetes", {}),
        ("sklearn:iris", {}),
        ("sklearn:linnerud", {}),
        ("sklearn:iris", {"categorical": ("-1",), "embedding_width": 2, "norm": "batch"}),
        ("sklearn:diabetes", {"categorical": ("sex",), "norm": "layer"}),
    ],
)
def test_without_dropout_they_are_the_plain_metrics(data: str, options: dict[str, Any]) -> None:
    table, goal, models = fitted(data, [0.2, 0.3], hidden_drop=0.0, **options)
    rows = held_out(table, models)
    found = monte_carlo_scores(models, rows, table, goal, 10, SEED)
    for one, places, scores in zip(models, rows, found, strict=True):
        plain = metrics_of(one.pipeline.predict(table.features[places]), goal, places)
        if goal.is_classification:
            assert scores["accuracy"] == pytest.approx(plain["accuracy"])
            assert scores["log_likelihood"] == pytest.approx(-plain["log_loss"], rel=1e-5)
            continue
        squares = [plain[name] ** 2 for name in plain if name.startswith("rmse")]
        likelihoods = [plain[name] for name in plain if name.startswith("log_likelihood")]
        assert scores["rmse"] == pytest.approx(math.sqrt(np.mean(squares)), rel=1e-5)
        assert scores["log_likelihood"] == pytest.approx(np.mean(likelihoods), rel=1e-5)


def passes_of(model: Fitted, table: Table, rows: np.ndarray, passes: int) -> list[np.ndarray]:
    """Outputs of every pass, by the masks that the scores are taken with, for a single member."""
    network = model.pipeline.network
    (block,) = derive(SEED, 1)
    masks = MaskStream([model.pipeline.drop_rates], network.sizes[:-1], derive(block, 1))
    x = torch.from_numpy(model.pipeline.encoding.apply(table.features[rows]))[None]
    return [network.forward(x, masks.draw(len(rows)))[0].double().numpy() for _ in range(passes)]


def test_the_log_likelihood_is_that_of_the_mixture_over_the_passes() -> None:
    table, goal, models = fitted("sklearn:diabetes", [0.2], input_drop=0.2, hidden_drop=0.4)
    (rows,) = held_out(table, models)
    (found,) = monte_carlo_scores(models, [rows], table, goal, 7, SEED)
    scaling = models[0].pipeline.target_scaling
    assert scaling is not None
    outputs = passes_of(models[0], table, rows, 7)
    means = np.array([one[:, 0] * scaling.std[0] + scaling.mean[0] for one in outputs])
    variances = np.array([np.exp(one[:, 1]) * scaling.std[0] ** 2 for one in outputs])
    truth = goal.values[rows, 0]
    densities = np.exp(-0.5 * (truth - means) ** 2 / variances) / np.sqrt(2 * np.pi * variances)
    assert found["log_likelihood"] == pytest.approx(np.log(densities.mean(axis=0)).mean(), rel=1e-4)
    assert found["rmse"] == pytest.approx(np.sqrt(np.mean((means.mean(axis=0) - truth) ** 2)), rel=1e-4)


def test_classes_are_judged_by_their_mean_probabilities() -> None:
    table, goal, models = fitted("sklearn:iris", [0.3], hidden_drop=0.5)
    (rows,) = held_out(table, models)
    (found,) = monte_carlo_scores(models, [rows], table, goal, 5, SEED)
    logits = np.array(passes_of(models[0], table, rows, 5))
    mean = (np.exp(logits) / np.exp(logits).sum(axis=2, keepdims=True)).mean(axis=0)
    truth = goal.values[rows].astype(int)
    assert found["accuracy"] == pytest.approx((mean.argmax(axis=1) == truth).mean())
    assert found["log_likelihood"] == pytest.approx(
        np.log(mean[np.arange(len(rows)), truth]).mean(), rel=1e-4
    )


def test_a_loss_without_noise_has_no_log_likelihood() -> None:
    table, goal, models = fitted("sklearn:diabetes", [0.2], loss="mse")
    (found,) = monte_carlo_scores(models, held_out(table, models), table, goal, 3, SEED)
    assert set(found) == {"rmse"}


def test_rows_are_computed_in_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    table, goal, models = fitted("sklearn:diabetes", [0.2, 0.3], hidden_drop=0.0)
    rows = held_out(table, models)
    whole = monte_carlo_scores(models, rows, table, goal, 1, SEED)
    monkeypatch.setattr(scoring, "BLOCK_UNITS", 2 * 10 * 7)
    for one, other in zip(monte_carlo_scores(models, rows, table, goal, 1, SEED), whole, strict=True):
        assert one == pytest.approx(other)


@pytest.mark.parametrize("data", ["sklearn:diabetes", "sklearn:iris"])
def test_a_row_too_far_to_be_answered_is_a_bad_score_and_a_finite_one(data: str) -> None:
    table, goal, models = fitted(data, [0.2], hidden_drop=0.3, level_off=0.0)
    rows = held_out(table, models)
    usual = monte_carlo_scores(models, rows, table, goal, 4, SEED)[0]
    table.features[rows[0][0], :2] = 3e38
    (scores,) = monte_carlo_scores(models, rows, table, goal, 4, SEED)
    assert all(math.isfinite(value) for value in scores.values())
    assert scores["log_likelihood"] < usual["log_likelihood"]
