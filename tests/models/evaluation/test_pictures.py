"""What the pictures show is what the figures say: their points, read back from the SVG."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from dropserve_models.evaluation import Report, evaluate, metrics
from dropserve_models.evaluation.learning import LearningCurve
from dropserve_models.evaluation.page import calibration, ranking, training
from dropserve_models.evaluation.report import Curves
from support.engines import Array, model_of
from support.onnx_models import mlp, noisy_regression
from support.picture import Picture, Points, bars

RANDOM = np.random.default_rng(0)
X: Array = RANDOM.normal(size=(60, 4)).astype(np.float32)
SUBJECTS = {"deterministic": "deterministic", "monte_carlo": "Monte Carlo"}
UNITS = 2e-4
"""Of a picture's coordinates, beside the largest value: they have six digits, and so have its labels."""


@pytest.fixture(scope="module")
def classes() -> Report:
    model = model_of(mlp([4, 16, 3], [0.0, 0.4], last="Softmax").onnx())
    return evaluate(model, X, RANDOM.integers(0, 3, 60), passes=20, out_of_distribution=3 * X[:50])


@pytest.fixture(scope="module")
def numbers() -> Report:
    model = model_of(noisy_regression())
    y = RANDOM.normal(size=(60, 2))
    return evaluate(model, X, y, passes=20, coverages=[0.5, 0.9], out_of_distribution=3 * X[:50])


def same(drawn: Points, *expected: Points) -> None:
    points = np.stack(expected, axis=1)
    assert drawn == pytest.approx(points, abs=UNITS * np.abs(points).max())


def line_of(picture: Picture, label: str, panel: int = 0) -> Points:
    (line,) = picture.lines(picture.legend[label], panel)
    return line


def test_reliability(classes: Report) -> None:
    curves = classes.outputs[0].curves
    picture = Picture(calibration.reliability(curves, "salt").svg)
    for subject, label in SUBJECTS.items():
        found = curves[subject].reliability
        assert found is not None
        held = found.counts > 0
        same(line_of(picture, label), found.confidence[held], found.accuracy[held])
        assert found.accuracy[held] @ found.counts[held] / 60 == pytest.approx(
            classes.figure("accuracy", subject).value
        )


def test_coverage(numbers: Report) -> None:
    curves = numbers.outputs[0].curves
    picture = Picture(calibration.coverage(curves, "salt").svg)
    for subject, label in SUBJECTS.items():
        found = curves[subject].coverage
        assert found is not None
        line = line_of(picture, label)
        same(line, *found.T)
        for asked in (0.5, 0.9):
            (observed,) = line[np.isclose(line[:, 0], asked, atol=1e-3), 1]
            told = numbers.figure(f"picp_{100 * asked:.0f}", subject).value
            assert observed == pytest.approx(told, abs=1e-3)


def test_calibrated_intervals_are_beside_them(numbers: Report) -> None:
    curves = numbers.outputs[0].curves
    held = np.array([[0.1, 0.2, 1.0], [0.5, 0.6, 2.0], [0.9, 0.8, 3.0]])
    curves = curves | {"monte_carlo": replace(curves["monte_carlo"], calibrated=held)}
    picture = Picture(calibration.coverage(curves, "salt").svg)
    lines = picture.lines(picture.legend["Monte Carlo, calibrated"])
    assert len(lines) == 2  # of Gaussian intervals, and of these
    same(lines[1], *held[:, :2].T)


def test_prediction_sets() -> None:
    held = np.array([[0.1, 0.4, 1.0], [0.5, 0.6, 1.5], [0.9, 0.8, 2.5]])
    picture = Picture(
        calibration.sets({"monte_carlo": Curves(held[0], held[0], calibrated=held)}, "salt").svg
    )
    same(line_of(picture, "Monte Carlo"), *held[:, :2].T)
    same(line_of(picture, "Monte Carlo", 1), *held[:, ::2].T)


def test_errors_by_uncertainty(numbers: Report) -> None:
    curves = numbers.outputs[0].curves
    picture = Picture(calibration.errors(curves, "salt").svg)
    for subject, label in SUBJECTS.items():
        error, total = curves[subject].error, curves[subject].total
        assert total is not None
        order = np.argsort(total).reshape(10, 6)  # ten bins of six rows
        rms = np.sqrt(np.square(error[order]).mean(axis=1))
        same(line_of(picture, label), total[order].mean(axis=1), rms)
        assert np.sqrt(np.square(rms).mean()) == pytest.approx(numbers.figure("rmse", subject).value)


@pytest.mark.parametrize("kind", ["classes", "numbers"])
def test_rejection(kind: str, request: pytest.FixtureRequest) -> None:
    report: Report = request.getfixturevalue(kind)
    curves = report.outputs[0].curves
    picture = Picture(ranking.rejection(curves, "salt", classifier=kind == "classes").svg)
    for subject, label in SUBJECTS.items():
        error, total = curves[subject].error, curves[subject].total
        assert total is not None
        surest = np.argsort(total, kind="stable")
        kept = np.arange(1, 61)
        same(line_of(picture, label), 1.0 - kept / 60, np.cumsum(error[surest]) / kept)
    best = picture.lines("faint")[0][:, 1]
    ordered = np.sort(curves["monte_carlo"].error)
    assert best == pytest.approx(np.cumsum(ordered) / np.arange(1, 61), abs=UNITS * ordered.max())


@pytest.mark.parametrize("kind", ["classes", "numbers"])
def test_in_and_out_of_distribution(kind: str, request: pytest.FixtureRequest) -> None:
    report: Report = request.getfixturevalue(kind)
    curve = report.outputs[0].curves["monte_carlo"]
    made = ranking.distribution(report.outputs[0].curves, "salt", "x", classifier=kind == "classes")
    assert made is not None
    picture = Picture(made.svg)
    heaps = {"in distribution: 60 rows": curve.epistemic, "out of distribution: 50 rows": curve.out_epistemic}
    for label, values in heaps.items():
        assert values is not None
        edges, shares = bars(line_of(picture, label))
        counts, _ = np.histogram(np.minimum(values, edges[-1]), edges)
        assert shares == pytest.approx(counts / len(values), abs=1e-3)
        assert shares.sum() == pytest.approx(1.0, abs=1e-3)
    inside, outside = heaps.values()
    assert inside is not None
    assert outside is not None
    assert report.figure("ood_auroc_epistemic").value == pytest.approx(
        metrics.auroc(np.repeat([False, True], [60, 50]), np.concatenate([inside, outside]))
    )
    assert np.median(outside) > np.median(inside)


def test_right_and_wrong(classes: Report) -> None:
    curve = classes.outputs[0].curves["monte_carlo"]
    made = ranking.histogram(classes.outputs[0].curves, "salt", classifier=True)
    assert made is not None
    assert curve.total is not None
    picture, wrong = Picture(made.svg), curve.error > 0.0
    for label, rows in {"right": ~wrong, "wrong": wrong}.items():
        edges, shares = bars(line_of(picture, f"{label}: {rows.sum()} rows"))
        counts, _ = np.histogram(np.minimum(curve.total[rows], edges[-1]), edges)
        assert shares == pytest.approx(counts / rows.sum(), abs=1e-3)


def test_learning() -> None:
    curve = LearningCurve([1, 2, 3], [3.0, 2.0, 1.5], [3.1, 2.2, 2.1], [0.1, 0.4, 0.5], "r2", 2)
    picture = Picture(training.learning(curve).svg)
    epochs = np.arange(1.0, 4.0)
    same(line_of(picture, "training, dropout on"), epochs, np.array(curve.loss))
    same(line_of(picture, "held out"), epochs, np.array(curve.validation_loss))
    same(line_of(picture, "held out", 1), epochs, np.array(curve.score))
    assert picture.lines("faint")[0][:, 0] == pytest.approx([2.0, 2.0], abs=1e-3)
