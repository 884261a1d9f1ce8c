from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from dropserve_models.columns import Column
from dropserve_models.errors import ConfigError
from dropserve_models.inference.deterministic import Device
from dropserve_models.training import pipelines
from dropserve_models.training.config import TrainingConfig
from dropserve_models.training.device import device_name, training_device
from dropserve_models.training.fit import Epoch
from dropserve_models.training.pipelines import Fit, Fitted, fit_pipelines
from dropserve_models.training.sources import read_table
from dropserve_models.training.split import Split, split_rows
from dropserve_models.training.table import Table, Target
from dropserve_models.training.task import recognise

TABLE = read_table("sklearn:diabetes")
GOAL = recognise(TABLE)


def fit_of(seed: int, **options: Any) -> Fit:
    split = split_rows(GOAL, 0.2, np.random.default_rng(seed))
    config = TrainingConfig.from_mapping({"hidden": (8,), "epochs": 3} | options)
    return Fit(split, config, np.random.SeedSequence(seed))


def parameters(fitted: list[Fitted]) -> list[torch.Tensor]:
    return [one.pipeline.network.parameters for one in fitted]


MIXED = [fit_of(0), fit_of(1, hidden=(4, 4)), fit_of(2, hidden_drop=0.5), fit_of(0, batch_size=16), fit_of(1)]


def test_models_come_in_the_order_asked_for_whatever_fleets_they_were_in() -> None:
    together = fit_pipelines(TABLE, GOAL, MIXED)
    assert [one.fit for one in together] == MIXED
    for fit, one in zip(MIXED, together, strict=True):
        (alone,) = fit_pipelines(TABLE, GOAL, [fit])
        assert one.pipeline.drop_rates == fit.config.drop_rates
        assert np.array_equal(one.pipeline.encoding.scaling.mean, alone.pipeline.encoding.scaling.mean)
        answers = one.pipeline.predict(TABLE.features)
        for name, expected in alone.pipeline.predict(TABLE.features).items():
            np.testing.assert_allclose(answers[name], expected, rtol=1e-3, atol=0.05)


def test_a_fleet_too_large_for_memory_is_trained_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    fits = [fit_of(seed) for seed in range(5)]
    whole = parameters(fit_pipelines(TABLE, GOAL, fits))
    sizes: list[int] = []
    fit: Any = vars(pipelines)["fit"]

    def counting(members: Any, *rest: Any, **options: Any) -> Any:
        sizes.append(len(members))
        return fit(members, *rest, **options)

    monkeypatch.setattr(pipelines, "fit", counting)
    monkeypatch.setattr(pipelines, "FLEET_BYTES", 100_000)
    for found, expected in zip(parameters(fit_pipelines(TABLE, GOAL, fits)), whole, strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-4)
    assert sizes == [2, 2, 1]
    monkeypatch.setattr(pipelines, "FLEET_BYTES", 1)
    fit_pipelines(TABLE, GOAL, fits[:2])
    assert sizes[3:] == [1, 1]


def test_epochs_are_told_and_models_ended_by_their_place_in_the_request() -> None:
    seen: list[set[int]] = []

    def on_epoch(epochs: Mapping[int, Epoch]) -> list[int]:
        seen.append(set(epochs))
        return [2] if epochs.keys() >= {2} else []

    fitted = fit_pipelines(TABLE, GOAL, MIXED, on_epoch=on_epoch)
    assert seen[:3] == [{0, 2, 4}, {0, 4}, {0, 4}]
    assert {1} in seen
    assert {3} in seen
    assert [len(one.history.epochs) for one in fitted] == [3, 3, 1, 3, 3]


def test_a_model_that_diverged_is_named() -> None:
    good, bad = (
        fit_of(0, optimizer="sgd", loss="mse"),
        fit_of(1, optimizer="sgd", loss="mse", learning_rate=1e9),
    )
    fitted = fit_pipelines(TABLE, GOAL, [good, bad])
    fitted[0].check_converged()
    with pytest.raises(ConfigError, match=r"diverged in epoch 1: .* lower learning_rate \(it is 1e\+09\)"):
        fitted[1].check_converged()


def test_small_steps_are_not_worth_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    assert training_device("auto", 5_000, 16).type == "cpu"
    assert training_device("auto", 100 * 5_000, 64).type == "cuda"
    assert training_device("cuda", 5_000, 16).type == "cuda"
    assert training_device("cpu", 100 * 5_000, 64).type == "cpu"


@pytest.mark.parametrize(
    ("asked", "available", "name"),
    [("auto", False, "cpu"), ("cpu", True, "cpu"), ("auto", True, "GPU 9"), ("cuda", True, "GPU 9")],
)
def test_a_run_is_of_the_device_that_auto_comes_to(
    asked: Device, available: bool, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: available)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "GPU 9")
    assert device_name(asked) == name


@pytest.mark.parametrize("width", [0, 2])
def test_categories_and_gaps_are_learned_from_the_training_rows_alone(width: int) -> None:
    random = np.random.default_rng(0)
    x = random.normal(size=(120, 3)).astype(np.float32)
    x[:, 1] = random.integers(0, 3, 120)
    x[random.random(120) < 0.2, 0] = np.nan
    y = np.nan_to_num(x[:, 0]).astype(np.float64) + np.array([0.0, 5.0, -5.0])[x[:, 1].astype(int)]
    columns = (Column("number", (), True), Column("category", ("u", "v", "w")), Column())
    table = Table(("a", "b", "c"), x, (Target("y", y),), columns)
    goal = recognise(table)
    split = Split(np.arange(80), np.arange(80, 80))
    options = {
        "epochs": 150,
        "learning_rate": 0.02,
        "loss": "mse",
        "embedding_width": width,
        "validation": 0.0,
        "hidden": (16,),
    }
    fit = Fit(split, TrainingConfig.from_mapping(options), np.random.SeedSequence(0))
    spoilt = x.copy()
    spoilt[80:] = (np.nan, -1.0, 1e3)
    (one,), (other,) = (
        fit_pipelines(replace(table, features=features), goal, [fit]) for features in (x, spoilt)
    )
    assert torch.equal(one.pipeline.network.parameters, other.pipeline.network.parameters)
    for found, expected in zip(
        one.pipeline.encoding.frequencies, other.pipeline.encoding.frequencies, strict=True
    ):
        assert np.array_equal(found, expected)

    answers = one.pipeline.predict(x[80:])["mean"]
    assert np.corrcoef(answers[:, 0], y[80:])[0, 1] > 0.95
    # A category that the training rows do not have is the average of theirs.
    encoded = one.pipeline.encoding.apply(spoilt[80:81])
    if width:
        weights = one.pipeline.encoding.averages()[0]
        table_of_b = one.pipeline.network.tables[0][0].numpy()
        np.testing.assert_allclose(table_of_b[-1], weights @ table_of_b[:-1], rtol=1e-5, atol=1e-6)
        assert encoded[0, -1] == len(table_of_b) - 1
    else:
        assert not encoded[0, 3:].any()
