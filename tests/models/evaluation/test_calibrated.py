"""Coverage and size of calibrated intervals and prediction sets, of networks and scores made by hand."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from dropserve_models import load
from dropserve_models.calibration import CalibrationRecord, ModeRecord
from dropserve_models.evaluation import Report, evaluate
from dropserve_models.evaluation.page import as_html
from dropserve_models.evaluation.text import as_text
from dropserve_models.manifest import Manifest, sha256_of
from dropserve_models.model import Model
from dropserve_models.prediction import Task
from dropserve_models.publishing import publish
from support.onnx_models import Array, mlp

RANDOM = np.random.default_rng(0)
X: Array = RANDOM.normal(size=(60, 6)).astype(np.float32)
REGRESSION = mlp([6, 20, 2], [0.1, 0.3]).onnx()
CLASSIFIER = mlp([6, 20, 3], [0.1, 0.3], last="Softmax").onnx()

# Four calibration rows tell of coverages up to .8: asked for .5 the third score decides, for .8 the last.
INTERVALS = CalibrationRecord(
    method="split",
    rows=4,
    guaranteed=True,
    noise_variance=(1.0, 4.0),
    deterministic=ModeRecord(scores=((0.0, 0.5, 1.0, 2.0), (0.1, 0.2, 0.3, 0.4))),
    monte_carlo=ModeRecord(scores=((0.0, 0.5, 0.75, 1.5), (0.1, 0.2, 0.3, 0.4)), passes=100),
)
SETS = CalibrationRecord(
    method="split",
    rows=4,
    guaranteed=True,
    deterministic=ModeRecord(scores=((0.1, 0.4, 0.6, 0.9),)),
)


def opened(folder: Path, network: bytes, task: Task, calibration: CalibrationRecord | None) -> Model:
    manifest = Manifest(
        task=task,
        feature_names=tuple("abcdef"),
        output_names=("y", "z") if task == "regression" else ("p", "q", "r"),
        drop_rates=(0.1, 0.3),
        predicts_noise=False,
        calibration=calibration,
        sha256=sha256_of(network),
    )
    return load(publish(folder, "m", network, manifest), device="cpu")


def found(report: Report, name: str, subject: str, output: int = 0) -> tuple[float | None, float | None]:
    figure = report.figure(name, subject, output)
    return figure.value, figure.standard_error


def of_rows(scores: Array) -> tuple[object, object]:
    """Mean and standard error, as they should be."""
    return pytest.approx(scores.mean()), pytest.approx(scores.std(ddof=1) / np.sqrt(len(scores)))


def test_intervals_of_both_modes_and_targets(tmp_path: Path) -> None:
    model = opened(tmp_path, REGRESSION, "regression", INTERVALS)
    y = model.predict(X).mean + RANDOM.normal(size=(60, 2))
    report = evaluate(model, X, y, passes=30, seed=4, coverages=[0.5, 0.8])
    variance = model.predict(X, passes=30, seed=4).variance
    assert variance is not None
    half = {
        ("deterministic", 50): np.tile([1.0 * 1.0, 0.3 * 2.0], (60, 1)),
        ("deterministic", 80): np.tile([2.0 * 1.0, 0.4 * 2.0], (60, 1)),
        ("monte_carlo", 50): np.array([0.75, 0.3]) * np.sqrt(variance + np.array([1.0, 4.0])),
        ("monte_carlo", 80): np.array([1.5, 0.4]) * np.sqrt(variance + np.array([1.0, 4.0])),
    }
    mean = {
        "deterministic": model.predict(X).mean,
        "monte_carlo": model.predict(X, passes=30, seed=4).mean,
    }
    for (subject, percent), radius in half.items():
        inside = (np.abs(y - mean[subject]) <= radius).astype(float)
        for output in (0, 1):
            assert 0.1 < inside[:, output].mean() < 1.0
            covered = found(report, f"interval_picp_{percent}", subject, output)
            assert covered == of_rows(inside[:, output])
            width = report.figure(f"interval_width_{percent}", subject, output).value
            assert width == pytest.approx(2.0 * radius[:, output].mean(), rel=1e-6)
    one, other = (
        np.abs(y - mean[subject])[:, 0] <= half[subject, 80][:, 0]
        for subject in ("monte_carlo", "deterministic")
    )
    change = report.outputs[0].differences["monte_carlo - deterministic"]["interval_picp_80"]
    assert (change.value, change.standard_error) == of_rows(one.astype(float) - other)


def test_sets_and_a_mode_that_was_not_calibrated(tmp_path: Path) -> None:
    model = opened(tmp_path, CLASSIFIER, "multiclass", SETS)
    classes = RANDOM.integers(0, 3, 60)
    report = evaluate(model, X, classes, passes=30, coverages=[0.5, 0.8])
    p = model.predict(X).mean.astype(float)
    for percent, quantile in ((50, 0.6), (80, 0.9)):
        chosen = (1.0 - p <= quantile) | (p == p.max(axis=1, keepdims=True))
        assert 1.0 < chosen.sum(axis=1).mean() < 3.0
        inside = chosen[np.arange(60), classes].astype(float)
        assert found(report, f"set_coverage_{percent}", "deterministic") == of_rows(inside)
        assert found(report, f"set_size_{percent}", "deterministic") == of_rows(
            chosen.sum(axis=1).astype(float)
        )
    figure = report.figure("set_coverage_80", "monte_carlo")
    assert figure.value is None
    assert "it was calibrated for deterministic requests only" in str(figure.note)
    assert "<h3>Prediction sets</h3>" in as_html(report).decode()
    assert report.outputs[0].curves["monte_carlo"].calibrated is None


def test_a_coverage_that_the_rows_can_t_tell_is_a_stated_gap(tmp_path: Path) -> None:
    model = opened(tmp_path, REGRESSION, "regression", INTERVALS)
    report = evaluate(model, X, model.predict(X).mean, passes=30, coverages=[0.8, 0.9])
    reason = "interval is 0.9; the model was calibrated on 4 rows, which tell of coverages up to 0.8"
    for name in ("interval_picp_90", "interval_width_90"):
        figure = report.figure(name)
        assert (figure.value, figure.note) == (None, reason)
    assert report.figure("interval_picp_80").value == 1.0
    assert f"- PICP, 90 % calibrated: {reason}" in as_text(report).splitlines()
    assert reason in as_html(report).decode()
    # The curve goes as far as the rows tell.
    curve = json.loads(report.to_json())["outputs"][0]["curves"]["monte_carlo"]["calibrated"]
    assert curve["nominal"] == pytest.approx(np.arange(0.02, 0.81, 0.02))
    # Up to .2 the lowest score decides, which is 0: an interval of no width.
    assert curve["mean_size"][:10] == [0.0] * 10
    assert curve["mean_size"][10] > 0.0
    assert curve["mean_size"] == sorted(curve["mean_size"])
    assert curve["observed"][-1] == 1.0


def test_without_calibration_nothing_is_said_of_it_unless_a_baseline_has_one(tmp_path: Path) -> None:
    plain = opened(tmp_path / "plain", REGRESSION, "regression", None)
    model = opened(tmp_path / "calibrated", REGRESSION, "regression", INTERVALS)
    y = model.predict(X).mean + 1.0
    alone = evaluate(plain, X, y, passes=5)
    assert not [name for name in alone.outputs[0].figures["monte_carlo"] if name.startswith("interval")]
    assert "calibrated" not in as_text(alone)
    report = evaluate(plain, X, y, passes=5, coverages=[0.8], baseline=model)
    assert report.figure("interval_picp_80", "baseline_monte_carlo").value is not None
    note = str(report.figure("interval_picp_80", "monte_carlo").note)
    assert note.startswith("model 'm' can't answer with intervals: it was published without a calibration")
    assert "interval_picp_80" not in report.outputs[0].differences["monte_carlo - baseline_monte_carlo"]


def test_of_an_interval_without_end_there_is_no_mean_width(tmp_path: Path) -> None:
    scores = ModeRecord(scores=((0.0, 0.0, 0.0, 1e39), (0.0, 0.0, 0.0, 1.0)))
    record = INTERVALS.model_copy(update={"deterministic": scores})
    model = opened(tmp_path, REGRESSION, "regression", record)
    report = evaluate(model, X, model.predict(X).mean, passes=5, coverages=[0.8])
    assert report.figure("interval_picp_80", "deterministic").value == 1.0
    figure = report.figure("interval_width_80", "deterministic")
    assert (figure.value, figure.note) == (None, "some intervals have no end")
    json.loads(report.to_json())
