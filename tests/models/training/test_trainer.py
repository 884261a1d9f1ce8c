from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from dropserve_models import artifact
from dropserve_models.errors import ArtifactError, CheckpointError, ConfigError, DeviceError, ExportError
from dropserve_models.manifest import sha256_of
from dropserve_models.training import export, trainer
from dropserve_models.training.checkpoint import Checkpoint
from dropserve_models.training.config import TrainingConfig
from dropserve_models.training.job import Job
from dropserve_models.training.trainer import train
from support.training import Killed, job

PNG = b"\x89PNG\r\n\x1a\n"


def test_what_is_published(tmp_path: Path) -> None:
    outcome = train(job(tmp_path, hidden=(16, 8), hidden_drop=(0.2, 0.0), input_drop=0.1, seed=3))
    assert outcome.folder == tmp_path / "model" / "1"
    files = {path.name for path in outcome.folder.iterdir()}
    assert files == {"model.onnx", "manifest.json", "learning_curve.png", "metrics.json"}
    assert (outcome.folder / "learning_curve.png").read_bytes().startswith(PNG)

    opened = artifact.open_artifact(outcome.folder)
    manifest = opened.manifest
    assert manifest is not None
    assert manifest.task == "multiclass"
    assert manifest.feature_names[0] == "sepal length (cm)"
    assert manifest.output_names == ("setosa", "versicolor", "virginica")
    assert manifest.drop_rates == (0.1, 0.2)
    assert not manifest.predicts_noise
    assert manifest.calibration is None
    record = manifest.training
    assert record is not None
    assert (record.rows, record.seed) == (150, 3)
    assert record.data_fingerprint == outcome.table.fingerprint()
    assert record.metrics == outcome.metrics
    assert record.config["hidden"] == [16, 8]
    assert set(record.versions) == {"python", "dropserve", "torch", "numpy", "onnx"}

    document = json.loads((outcome.folder / "metrics.json").read_bytes())
    assert document["training_rows"] + document["validation_rows"] == 150
    assert [epoch["number"] for epoch in document["epochs"]] == [1, 2, 3, 4, 5]
    assert document["validation"] == outcome.metrics
    assert document["kept"] in document["epochs"]


def test_metrics_are_those_of_the_artifact_on_the_validation_rows(tmp_path: Path) -> None:
    outcome = train(job(tmp_path))
    answers = export.run(
        artifact.open_artifact(outcome.folder).model_bytes, outcome.table.features[outcome.split.validation]
    )
    right = answers["probabilities"].argmax(axis=1) == outcome.goal.values[outcome.split.validation]
    assert outcome.metrics["accuracy"] == right.mean()


def test_the_same_seed_gives_the_same_model_file(tmp_path: Path) -> None:
    runs = [train(job(tmp_path, seed=seed)).folder for seed in (1, 1, 2)]
    digests = [sha256_of((folder / "model.onnx").read_bytes()) for folder in runs]
    assert [folder.name for folder in runs] == ["1", "2", "3"]
    assert digests[0] == digests[1] != digests[2]
    manifests = [(folder / "manifest.json").read_bytes() for folder in runs]
    assert manifests[0] == manifests[1]


@pytest.mark.parametrize(
    ("loss", "noise", "metrics"),
    [("beta_nll", True, {"rmse", "mae", "r2", "log_likelihood"}), ("mse", False, {"rmse", "mae", "r2"})],
)
def test_regression(tmp_path: Path, loss: str, noise: bool, metrics: set[str]) -> None:
    outcome = train(job(tmp_path, "sklearn:diabetes", loss=loss))
    assert set(outcome.metrics) == metrics
    manifest = artifact.open_artifact(outcome.folder).manifest
    assert manifest is not None
    assert (manifest.predicts_noise, manifest.output_names) == (noise, ("target",))


def test_several_targets(tmp_path: Path) -> None:
    outcome = train(job(tmp_path, "sklearn:linnerud"))
    assert outcome.goal.output_names == ("Weight", "Waist", "Pulse")
    assert "rmse/Waist" in outcome.metrics
    chosen = train(Job("sklearn:linnerud", "one", tmp_path, ("Waist",), config=TrainingConfig(epochs=2)))
    assert chosen.goal.output_names == ("Waist",)


def test_scales_are_measured_on_the_training_rows_alone(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    X, y = random.normal(size=(50, 2)), random.normal(size=50)
    split = train(_npz_job(tmp_path, X, y)).split
    shifted = X.copy()
    shifted[split.validation] += 100.0  # must not change what is learned
    y2 = y.copy()
    y2[split.validation] -= 50.0
    # One epoch, so that the choice of the best epoch plays no part.
    files = [
        train(_npz_job(tmp_path, *data, epochs=1)).folder / "model.onnx" for data in ((X, y), (shifted, y2))
    ]
    assert files[0].read_bytes() == files[1].read_bytes()


def _npz_job(folder: Path, X: Any, y: Any, **options: Any) -> Job:
    np.savez(folder / "data.npz", X=X, y=y)
    config = TrainingConfig.from_mapping({"hidden": (8,), "epochs": 2, "calibration": "none"} | options)
    return Job(str(folder / "data.npz"), "model", folder / "repository", config=config)


def test_a_constant_column_is_kept_with_a_warning(tmp_path: Path) -> None:
    X = np.random.default_rng(0).normal(size=(40, 3))
    X[:, 1] = 7.7
    warnings: list[str] = []
    expected = (
        "constant in the training rows, kept and scaled by 1: x_2; "
        "nothing can be learned from what never changes"
    )
    outcome = train(_npz_job(tmp_path, X, X[:, 0]), warn=warnings.append)
    assert warnings == [expected]
    model_bytes = artifact.open_artifact(outcome.folder).model_bytes
    assert np.isfinite(export.run(model_bytes, X.astype(np.float32))["mean"]).all()


def test_columns_far_from_zero_are_learned(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    X = 1e6 + random.normal(size=(400, 2))
    y = 1e5 + 3 * (X[:, 0] - 1e6)
    outcome = train(_npz_job(tmp_path, X, y, epochs=40, learning_rate=0.02))
    assert outcome.metrics["r2"] > 0.9


def test_all_rows_are_learned_from_where_none_are_held_out(tmp_path: Path) -> None:
    outcome = train(job(tmp_path, validation=0))
    assert len(outcome.split.training) == 150
    assert outcome.metrics == {}
    assert [epoch.validation_loss for epoch in outcome.history.epochs] == [None] * 5
    assert outcome.history.best == outcome.history.epochs[-1]
    document = json.loads((outcome.folder / "metrics.json").read_bytes())
    assert (document["validation_rows"], document["validation"]) == (0, {})
    assert (outcome.folder / "learning_curve.png").read_bytes().startswith(PNG)


def test_a_cross_validation_is_recorded_and_changes_nothing_else(tmp_path: Path) -> None:
    plain = train(job(tmp_path))
    crossed = train(replace(job(tmp_path), folds=3, repeats=2))
    assert (plain.folder / "model.onnx").read_bytes() == (crossed.folder / "model.onnx").read_bytes()
    manifest = artifact.open_artifact(crossed.folder).manifest
    assert manifest is not None
    assert manifest.training is not None
    record = manifest.training.cross_validation
    assert record is not None
    assert (record.folds, record.repeats) == (3, 2)
    assert crossed.cross_validation is not None
    accuracies = crossed.cross_validation.values["accuracy"]
    assert record.figures["accuracy"].mean == accuracies.mean()
    document = json.loads((crossed.folder / "cross_validation.json").read_bytes())
    assert document["values"]["accuracy"] == accuracies.tolist()
    assert plain.cross_validation is None
    assert not (plain.folder / "cross_validation.json").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"folds": 1}, "at least 2 folds, not 1"),
        ({"folds": -3}, "at least 2 folds, not -3"),
        ({"repeats": 2}, "give at least 1, and the number of folds with it"),
        ({"folds": 3, "repeats": 0}, "0 repeats of a cross-validation: give at least 1"),
        ({"folds": 151}, "151 folds are too many for 150 rows"),
    ],
)
def test_a_cross_validation_that_makes_no_sense(
    tmp_path: Path, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        train(replace(job(tmp_path / "repository"), **options))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("option", [{"label_smoothing": 0.1}, {"class_weights": "balanced"}])
def test_options_of_classifiers_are_refused_for_regression(tmp_path: Path, option: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match="is for classifiers; this is regression: 'target' holds numbers"):
        train(job(tmp_path, "sklearn:diabetes", **option))


def test_class_weights_are_one_for_each_class(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="class_weights has 2 numbers for 3 classes: setosa, versicolor, v"):
        train(job(tmp_path, class_weights="1,2"))
    random = np.random.default_rng(0)
    X = random.normal(size=(400, 2))
    y = np.where(X[:, 0] + random.normal(size=400) > 1.2, "rare", "common")
    found = {}
    for weights in ("none", "balanced", "1,8"):
        outcome = train(_npz_job(tmp_path, X, y, epochs=30, class_weights=weights))
        answers = export.run(artifact.open_artifact(outcome.folder).model_bytes, X.astype(np.float32))
        found[weights] = answers["probabilities"][:, 1].mean()
    assert found["none"] == pytest.approx((y == "rare").mean(), abs=0.06)
    assert found["none"] + 0.1 < found["balanced"] < found["1,8"]


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_gpu_that_is_not_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(DeviceError, match="torch finds no usable GPU; use --device cpu"):
        train(replace(job(tmp_path / "repository"), device="cuda"))
    assert list(tmp_path.iterdir()) == []


def test_a_killed_run_goes_on_to_the_same_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = replace(job(tmp_path, hidden_drop=0.3), folds=3, checkpoint=tmp_path / "checkpoint")
    expected = train(replace(whole, checkpoint=None)).folder
    monkeypatch.setattr(Checkpoint, "due", lambda self: True)
    original = Checkpoint.save
    for stage in ("cross-validation", "fit"):
        saves: list[str] = []

        def save(self: Checkpoint, state: Any, stage: str = stage, saves: list[str] = saves) -> None:
            if stage in self.path.name and len(saves) == 3:
                raise Killed
            saves.append(self.path.name)
            original(self, state)

        with monkeypatch.context() as patch:
            patch.setattr(Checkpoint, "save", save)
            with pytest.raises(Killed):
                train(whole)
    with pytest.raises(CheckpointError, match="with other data, options, device or versions"):
        train(replace(whole, folds=4))
    with monkeypatch.context() as patch:
        patch.setattr("torch.cuda.is_available", lambda: True)
        patch.setattr("torch.cuda.get_device_name", lambda: "another")
        with pytest.raises(CheckpointError, match="with other data, options, device or versions"):
            train(whole)
    warnings: list[str] = []
    found = train(whole, warn=warnings.append).folder
    assert warnings == [f"going on from the checkpoint in {tmp_path / 'checkpoint'}"]
    assert not (tmp_path / "checkpoint").exists()
    for path in sorted(expected.iterdir()):
        assert (found / path.name).read_bytes() == path.read_bytes(), path.name


def test_a_graph_that_disagrees_is_not_published(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(export, "TOLERANCE", -1.0)
    with pytest.raises(ExportError, match="not published"):
        train(job(tmp_path / "repository"))
    assert not (tmp_path / "repository").exists()


def test_a_repository_that_can_not_be_written_is_told_before_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setattr(trainer, "read_table", None)  # not even reached
    with pytest.raises(ConfigError, match="is not a folder"):
        train(job(tmp_path / "file"))


def test_a_full_disk_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(ArtifactError, match="No space left on device"):
        train(job(tmp_path / "repository"))
    assert list(tmp_path.iterdir()) == []
