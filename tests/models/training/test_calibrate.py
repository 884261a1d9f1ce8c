"""From rows to a calibrated artifact: what is fitted on what, and that it does what the manifest says."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dropserve_models import load
from dropserve_models.artifact import open_artifact
from dropserve_models.calibration import CalibrationRecord
from dropserve_models.conformal import classification_scores, rank, regression_scores
from dropserve_models.errors import ConfigError, DataError, ModelsError
from dropserve_models.training.arrays import table_from_arrays
from dropserve_models.training.calibrate import (
    FEW_ROWS,
    HELD_OUT,
    MANY_ROWS,
    SLOW_ROWS,
    Calibrator,
    folds_of,
    resolve,
)
from dropserve_models.training.config import TrainingConfig
from dropserve_models.training.job import Job, Outcome
from dropserve_models.training.task import recognise
from dropserve_models.training.trainer import train
from dropserve_models.training.tuning import PASSES

RECIPE: dict[str, Any] = {"hidden": (24,), "epochs": 12, "hidden_drop": (0.2,), "learning_rate": 0.02}


def trained(folder: Path, data: str = "sklearn:diabetes", **options: Any) -> Outcome:
    return train(Job(data, "model", folder, config=TrainingConfig.from_mapping(RECIPE | options)))


@pytest.fixture(scope="module")
def by_folds(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Outcome]:
    """A regression and a classifier, calibrated by folds; several tests look at them."""
    folder = tmp_path_factory.mktemp("by_folds")
    return {
        name: trained(folder / name, f"sklearn:{name}", calibration="cv") for name in ("diabetes", "wine")
    }


def record_of(outcome: Outcome) -> CalibrationRecord:
    manifest = open_artifact(outcome.folder).manifest
    assert manifest is not None
    assert manifest.calibration is not None
    assert manifest.calibration == outcome.calibration
    return manifest.calibration


def held_out_rows(outcome: Outcome) -> np.ndarray:
    learned = np.concatenate([outcome.split.training, outcome.split.validation])
    return np.setdiff1d(np.arange(outcome.table.rows), learned)


def test_auto_takes_folds_where_rows_are_few_and_a_part_where_they_are_many() -> None:
    assert resolve("auto", MANY_ROWS - 1) == resolve("auto", FEW_ROWS) == "cv"
    assert resolve("auto", MANY_ROWS) == HELD_OUT
    assert resolve("auto", FEW_ROWS - 1) == "none"
    assert resolve("cv", 10**6) == "cv"
    assert resolve(0.3, 10) == 0.3


def test_small_tables_have_more_folds_for_their_models_lack_the_rows() -> None:
    assert [folds_of(rows) for rows in (3, 20, SLOW_ROWS - 1, SLOW_ROWS)] == [3, 20, 20, 10]


def test_split_scores_are_those_of_the_published_model_on_rows_it_never_saw(tmp_path: Path) -> None:
    outcome = trained(tmp_path, calibration=0.25)
    record, rows = record_of(outcome), held_out_rows(outcome)
    assert (record.method, record.guaranteed, record.rows, len(rows)) == ("split", True, 110, 110)
    assert record.temperature is None
    assert record.noise_scale is not None
    model: Any = load(outcome.folder, device="cpu")
    X, y = outcome.table.features[rows], outcome.goal.values[rows].astype(np.float64)
    for mode, options in ((record.deterministic, {}), (record.monte_carlo, {"passes": PASSES, "seed": 0})):
        assert mode is not None
        scores = np.sort(regression_scores(model.predict(X, **options), y).ravel())
        np.testing.assert_allclose(mode.scores[0], scores, rtol=1e-5, atol=1e-6)
        # So of the calibration rows exactly the rank's number lies inside.
        answer = model.predict(X, interval=0.9, **options)
        assert answer.interval_lower is not None
        assert answer.interval_upper is not None
        held = (answer.interval_lower <= y) & (y <= answer.interval_upper)
        assert abs(int(held.sum()) - rank(110, 0.9)) <= 1


def test_what_calibration_rows_hold_changes_nothing_that_is_served_but_the_scores(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    X, y = random.normal(size=(200, 3)).astype(np.float32), random.normal(size=200)
    np.savez(tmp_path / "one.npz", X=X, y=y)
    outcome = trained(tmp_path / "1", str(tmp_path / "one.npz"), calibration=0.3)
    rows = held_out_rows(outcome)
    X[rows] += 50.0
    y[rows] -= 50.0
    np.savez(tmp_path / "two.npz", X=X, y=y)
    other = trained(tmp_path / "2", str(tmp_path / "two.npz"), calibration=0.3)
    assert (outcome.folder / "model.onnx").read_bytes() == (other.folder / "model.onnx").read_bytes()
    assert record_of(outcome).deterministic.scores != record_of(other).deterministic.scores


def test_without_validation_rows_a_split_fits_nothing_beside_the_scores(tmp_path: Path) -> None:
    record = record_of(trained(tmp_path, calibration=0.25, validation=0.0))
    assert record.guaranteed
    assert (record.temperature, record.noise_scale, record.noise_variance) == (None, None, None)
    assert record.deterministic.log_likelihood is None


def test_folds_calibrate_on_every_row_and_leave_the_weights_alone(
    by_folds: dict[str, Outcome], tmp_path: Path
) -> None:
    outcome = by_folds["diabetes"]
    record = record_of(outcome)
    assert (record.method, record.guaranteed, record.rows) == ("cross", False, 442)
    assert len(held_out_rows(outcome)) == 0
    assert record.monte_carlo is not None
    assert (record.monte_carlo.passes, record.monte_carlo.masks) == (PASSES, "stratified")
    assert record.noise_scale is not None

    plain: Any = load(trained(tmp_path, calibration="none").folder, device="cpu")
    assert not plain.info.calibrated
    X = outcome.table.features
    model: Any = load(outcome.folder, device="cpu")
    before, after = plain.predict(X), model.predict(X)
    np.testing.assert_array_equal(before.mean, after.mean)
    assert before.aleatoric_variance is not None
    np.testing.assert_allclose(
        after.aleatoric_variance, before.aleatoric_variance * record.noise_scale[0], rtol=1e-5
    )


def test_a_temperature_divides_the_logits_in_every_runtime(
    by_folds: dict[str, Outcome], tmp_path: Path
) -> None:
    outcome = by_folds["wine"]
    temperature = record_of(outcome).temperature
    assert temperature is not None
    assert temperature != 1.0
    plain: Any = load(trained(tmp_path, "sklearn:wine", calibration="none").folder, device="cpu")
    model: Any = load(outcome.folder, device="cpu")
    X = outcome.table.features
    before = np.log(plain.predict(X).mean.astype(np.float64))
    after = np.log(model.predict(X).mean.astype(np.float64))
    # Logits are known up to a constant in each row.
    np.testing.assert_allclose(
        after - after[:, :1], (before - before[:, :1]) / temperature, rtol=1e-3, atol=1e-3
    )
    one, other = (m.predict(X[:9], passes=4, seed=1, return_samples=True).samples for m in (plain, model))
    assert one is not None
    assert other is not None
    before, after = np.log(one.astype(np.float64)), np.log(other.astype(np.float64))
    np.testing.assert_allclose(
        after - after[..., :1], (before - before[..., :1]) / temperature, rtol=1e-3, atol=1e-3
    )


def test_classes_of_held_out_rows_are_scored_by_their_probability(tmp_path: Path) -> None:
    outcome = trained(tmp_path, "sklearn:wine", calibration=0.4)
    record, rows = record_of(outcome), held_out_rows(outcome)
    prediction = load(outcome.folder, device="cpu").predict(outcome.table.features[rows])
    scores = classification_scores(prediction, outcome.goal.values[rows].astype(np.int64))
    np.testing.assert_allclose(record.deterministic.scores[0], np.sort(scores.ravel()), atol=1e-6)


def test_several_targets_are_calibrated_one_by_one(tmp_path: Path) -> None:
    record = record_of(trained(tmp_path, "sklearn:linnerud", calibration=0.3, batch_size=8))
    assert record.noise_scale is not None
    assert len(record.noise_scale) == len(record.deterministic.scores) == 3


def test_a_model_without_noise_gets_one_for_its_intervals(tmp_path: Path) -> None:
    outcome = trained(tmp_path, calibration="cv", loss="mse")
    record = record_of(outcome)
    assert record.noise_scale is None
    assert record.noise_variance is not None
    model, X = load(outcome.folder, device="cpu"), outcome.table.features
    assert not model.info.predicts_noise
    point = model.predict(X, interval=0.9)
    bars = model.predict(X, passes=50, seed=1, interval=0.9)
    assert point.interval_lower is not None
    assert point.interval_upper is not None
    assert bars.interval_lower is not None
    assert bars.interval_upper is not None
    # As wide everywhere without passes; wider where they disagree with them.
    assert np.ptp(point.interval_upper - point.interval_lower) < 1e-2
    assert bars.variance is not None
    assert record.monte_carlo is not None
    quantile = record.monte_carlo.scores[0][rank(442, 0.9) - 1]
    half = quantile * np.sqrt(bars.variance.astype(np.float64) + record.noise_variance[0])
    np.testing.assert_allclose(bars.interval_upper, bars.mean + half, rtol=1e-6)


def test_without_dropout_there_are_scores_of_one_mode(tmp_path: Path) -> None:
    record = record_of(trained(tmp_path, calibration=0.2, hidden_drop=(0.0,)))
    assert record.monte_carlo is None


def test_what_was_fitted_is_no_worse_where_it_was_fitted(by_folds: dict[str, Outcome]) -> None:
    for outcome in by_folds.values():
        record = record_of(outcome)
        assert record.monte_carlo is not None
        found = (record.deterministic.log_likelihood, record.monte_carlo.log_likelihood)
        assert all(likelihood is not None for likelihood in found)
        assert sum(one.after for one in found if one) >= sum(one.before for one in found if one)


def test_intervals_of_new_rows_hold_the_target_as_often_as_promised(tmp_path: Path) -> None:
    random = np.random.default_rng(5)

    def drawn(rows: int) -> tuple[np.ndarray, np.ndarray]:
        X = random.uniform(-2, 2, size=(rows, 1)).astype(np.float32)
        # Noise that no Gaussian has: heavy tails, and more of it on the right.
        return X, np.sin(2 * X[:, 0]) + (0.1 + 0.3 * (X[:, 0] > 0)) * random.standard_t(3, size=rows)

    X, y = drawn(800)
    np.savez(tmp_path / "data.npz", X=X, y=y)
    X, y = drawn(5000)
    for calibration in (0.25, "cv"):
        outcome = trained(tmp_path, str(tmp_path / "data.npz"), calibration=calibration, epochs=40)
        model: Any = load(outcome.folder, device="cpu")
        for options in ({}, {"passes": PASSES, "seed": 3}):
            answer = model.predict(X, interval=0.9, **options)
            assert answer.interval_lower is not None
            assert answer.interval_upper is not None
            held = (answer.interval_lower[:, 0] <= y) & (y <= answer.interval_upper[:, 0])
            # 200 calibration rows: the coverage is Beta(181, 20), of standard deviation .021.
            assert 0.83 < held.mean() < 0.96


def test_the_same_seed_calibrates_to_the_same_manifest(by_folds: dict[str, Outcome], tmp_path: Path) -> None:
    again = trained(tmp_path, "sklearn:wine", calibration="cv")
    assert record_of(by_folds["wine"]) == record_of(again)


def test_too_few_rows_are_refused_in_one_line(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"calibration on 0\.001 of 442 rows leaves no rows"):
        trained(tmp_path, calibration=0.001)
    with pytest.raises(DataError, match=r"calibration on 0\.9 of 20 rows leaves 2 to learn from: at least 4"):
        trained(tmp_path, "sklearn:linnerud", calibration=0.9)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(("rows", "validation", "fewest"), [(4, 0.2, 5), (2, 0.0, 3)])
def test_too_few_rows_for_folds_are_told_before_anything_is_trained(
    rows: int, validation: float, fewest: int, tmp_path: Path
) -> None:
    values = np.arange(rows, dtype=float)
    table = table_from_arrays(values[:, None], values[:, None] ** 2, ("x",), ("y",))
    config = TrainingConfig.from_mapping({"calibration": "cv", "validation": validation})
    with pytest.raises(DataError, match=f"needs at least {fewest} rows, and there are {rows}"):
        Calibrator(table, recognise(table, "regression"), config, np.random.SeedSequence(0))


@pytest.mark.parametrize("validation", [0.2, 0.0])
def test_a_value_that_nothing_can_be_answered_to_is_named(validation: float, tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    X, y = random.normal(size=(60, 2)), random.normal(size=60)
    X[7, 1] = 1e30  # as some mark what is missing
    np.savez(tmp_path / "data.npz", X=X, y=y)
    options = RECIPE | {"calibration": "cv", "validation": validation, "epochs": 2, "level_off": 0.0}
    job = Job(str(tmp_path / "data.npz"), "m", tmp_path, config=TrainingConfig.from_mapping(options))
    with pytest.raises(ModelsError, match=r"column 'x_2', row 8: 1e\+30 is .* standard deviations from the"):
        train(job)


def test_a_diverging_fold_names_the_calibration(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"diverged"):
        trained(tmp_path, calibration="cv", optimizer="sgd", learning_rate=1e9, loss="mse")
    assert not list(tmp_path.iterdir())


def test_categories_and_missing_values_are_calibrated_through_the_graph(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    colours, values = random.choice(["red", "green", "blue"], size=120), random.normal(size=120)
    texts = ["" if row % 9 == 0 else f"{value:.3f}" for row, value in enumerate(values)]
    y = values + 2.0 * (colours == "red")
    lines = [f"{colour},{text},{target:.3f}" for colour, text, target in zip(colours, texts, y, strict=True)]
    (tmp_path / "table.csv").write_text("\n".join(["colour,size,y", *lines]) + "\n")
    for calibration in ("cv", 0.3):
        options = RECIPE | {"calibration": calibration}
        job = Job(
            str(tmp_path / "table.csv"), "m", tmp_path, ("y",), config=TrainingConfig.from_mapping(options)
        )
        outcome = train(job)
        assert record_of(outcome).rows == (120 if calibration == "cv" else 36)
        model: Any = load(outcome.folder, device="cpu")
        answer = model.predict(outcome.table.features, passes=20, interval=0.8)
        assert np.isfinite(answer.interval_upper).all()
