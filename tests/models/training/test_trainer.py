from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dropserve_models import artifact
from dropserve_models.errors import ArtifactError, ConfigError, ExportError
from dropserve_models.manifest import sha256_of
from dropserve_models.training import export, trainer
from dropserve_models.training.config import TrainingConfig
from dropserve_models.training.trainer import Job, train

PNG = b"\x89PNG\r\n\x1a\n"


def job(repository: Path, data: str = "sklearn:iris", **options: Any) -> Job:
    config = TrainingConfig.from_mapping({"hidden": (16,), "epochs": 5} | options)
    return Job(data, "model", repository, config=config)


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
    config = TrainingConfig.from_mapping({"hidden": (8,), "epochs": 2} | options)
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
