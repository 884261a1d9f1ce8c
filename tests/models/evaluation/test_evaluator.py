"""Evaluations of networks made by hand, against what their answers say."""

from __future__ import annotations

import json

import numpy as np
import pytest
from scipy import stats

from dropserve_models.errors import InputError
from dropserve_models.evaluation import Report, evaluate, metrics
from dropserve_models.evaluation.answers import CRPS_PASSES
from dropserve_models.model import Model
from support.engines import Array, model_of
from support.onnx_models import mlp, noisy_regression

RANDOM = np.random.default_rng(0)
X: Array = RANDOM.normal(size=(60, 4)).astype(np.float32)
CLASSIFIER = model_of(mlp([4, 16, 3], [0.0, 0.4], last="Softmax").onnx())
BINARY = model_of(mlp([4, 16, 1], [0.0, 0.4], last="Sigmoid").onnx())
NO_NOISE = model_of(mlp([4, 16, 16, 1], [0.0, 0.3, 0.4]).onnx())
NO_DROPOUT = model_of(mlp([4, 16, 3], [0.0, 0.0], last="Softmax").onnx())


NOISY = model_of(noisy_regression())
Y = NOISY.predict(X).mean + RANDOM.normal(size=(60, 2))


def value(report: Report, measure: str, subject: str, output: int = 0) -> float:
    found = report.figure(measure, subject, output).value
    assert found is not None
    return found


@pytest.mark.parametrize("output", [0, 1])
def test_regression_with_noise(output: int) -> None:
    report = evaluate(NOISY, X, Y, passes=60, seed=5, coverages=[0.9])
    assert [len(report.outputs), report.rows, report.passes, report.seed] == [2, 60, 60, 5]
    y = Y[:, output]

    plain = NOISY.predict(X)
    assert plain.aleatoric_variance is not None
    mean, std = (
        plain.mean[:, output].astype(float),
        np.sqrt(plain.aleatoric_variance[:, output].astype(float)),
    )
    expected = {
        "rmse": np.sqrt(np.mean((y - mean) ** 2)),
        "mae": np.mean(np.abs(y - mean)),
        "r2": 1.0 - np.sum((y - mean) ** 2) / np.sum((y - y.mean()) ** 2),
        "log_likelihood": stats.norm(mean, std).logpdf(y).mean(),
        "crps": metrics.gaussian_crps(y, mean, std**2).mean(),
        "picp_90": np.mean(np.abs(y - mean) <= stats.norm.ppf(0.95) * std),
        "width_90": np.mean(2.0 * stats.norm.ppf(0.95) * std),
        "error_auroc": metrics.auroc(np.abs(y - mean) > np.quantile(np.abs(y - mean), 0.9), std),
        "ause": metrics.ause(np.abs(y - mean), std),
    }
    found = report.outputs[output].figures["deterministic"]
    assert {name: figure.value for name, figure in found.items()} == pytest.approx(expected)

    bars = NOISY.predict(X, passes=60, seed=5)
    samples = NOISY.predict(X, passes=60, seed=5, return_samples=True)
    assert bars.predictive_variance is not None
    assert samples.samples is not None
    assert samples.noise_samples is not None
    mean = bars.mean[:, output].astype(float)
    std = np.sqrt(bars.predictive_variance[:, output].astype(float))
    passes, noise = (
        samples.samples[..., output].astype(float),
        samples.noise_samples[..., output].astype(float),
    )
    assert value(report, "rmse", "monte_carlo", output) == pytest.approx(np.sqrt(np.mean((y - mean) ** 2)))
    density = np.mean(np.exp(-0.5 * (y - passes) ** 2 / noise) / np.sqrt(2 * np.pi * noise), axis=0)
    assert value(report, "log_likelihood", "monte_carlo", output) == pytest.approx(np.log(density).mean())
    assert value(report, "gaussian_log_likelihood", "monte_carlo", output) == pytest.approx(
        stats.norm(mean, std).logpdf(y).mean()
    )
    crps = metrics.mixture_crps(y, passes, noise).mean()
    assert value(report, "crps", "monte_carlo", output) == pytest.approx(crps)
    difference = report.outputs[output].differences["monte_carlo - deterministic"]["crps"].value
    assert difference == pytest.approx(crps - expected["crps"])


def test_classes() -> None:
    classes = RANDOM.integers(0, 3, 60)
    report = evaluate(CLASSIFIER, X, classes, passes=50, seed=2)
    for subject, answer in (
        ("deterministic", CLASSIFIER.predict(X)),
        ("monte_carlo", CLASSIFIER.predict(X, passes=50, seed=2)),
    ):
        p = answer.mean.astype(float)
        wrong = p.argmax(axis=1) != classes
        entropy = stats.entropy(p, axis=1)
        assert value(report, "accuracy", subject) == np.mean(~wrong)
        assert value(report, "auc", subject) == pytest.approx(metrics.auc(classes, p))
        assert value(report, "log_likelihood", subject) == pytest.approx(
            np.log(p[np.arange(60), classes]).mean()
        )
        assert value(report, "brier", subject) == pytest.approx(
            ((p - np.eye(3)[classes]) ** 2).sum(axis=1).mean()
        )
        assert value(report, "ece", subject) == pytest.approx(metrics.expected_calibration_error(classes, p))
        assert value(report, "error_auroc", subject) == pytest.approx(metrics.auroc(wrong, entropy), rel=1e-5)
    bars = CLASSIFIER.predict(X, passes=50, seed=2)
    assert bars.mutual_information is not None
    assert value(report, "error_auroc_epistemic", "monte_carlo") == pytest.approx(
        metrics.auroc(bars.mean.argmax(axis=1) != classes, bars.mutual_information)
    )
    assert report.majority == (
        CLASSIFIER.info.output_names[np.bincount(classes).argmax()],
        np.bincount(classes).max() / 60,
    )


def test_classes_as_labels_or_numbers() -> None:
    numbers = RANDOM.integers(0, 2, 60)
    labels = np.array(BINARY.info.output_names)[numbers]
    one, *others = (
        evaluate(BINARY, X, y, passes=20).to_json()
        for y in (numbers, labels.tolist(), numbers.astype(float), numbers.astype(bool), numbers[:, None])
    )
    assert others == [one] * 4


def test_strange_rows() -> None:
    far = 20.0 * X
    report = evaluate(NO_NOISE, X, NO_NOISE.predict(X).mean, passes=50, seed=1, out_of_distribution=far)
    inside, outside = (NO_NOISE.predict(x, passes=50, seed=1).std for x in (X, far))
    assert inside is not None
    assert outside is not None
    expected = np.mean(outside[:, 0][:, None] > inside[:, 0])
    assert expected > 0.9
    assert value(report, "ood_auroc", "monte_carlo") == pytest.approx(expected)
    assert value(report, "ood_auroc_epistemic", "monte_carlo") == pytest.approx(expected)
    assert report.figure("ood_auroc", "deterministic").note == "the model predicts no noise"


def test_without_noise_there_is_no_likelihood() -> None:
    y = NO_NOISE.predict(X).mean + 1.0
    report = evaluate(NO_NOISE, X, y, passes=20)
    for subject in ("deterministic", "monte_carlo"):
        assert report.figure("log_likelihood", subject).note == "the model predicts no noise"
    assert value(report, "crps", "deterministic") == pytest.approx(1.0, rel=1e-5)
    samples = NO_NOISE.predict(X, passes=20, seed=0, return_samples=True).samples
    assert samples is not None
    assert value(report, "crps", "monte_carlo") == pytest.approx(metrics.ensemble_crps(y, samples).mean())


def test_without_dropout_there_is_no_monte_carlo_part() -> None:
    report = evaluate(NO_DROPOUT, X, RANDOM.integers(0, 3, 60))
    assert list(report.outputs[0].figures) == ["deterministic"]
    assert (report.passes, report.seed) == (None, None)
    assert "No Monte Carlo part: model 'model' can't answer with error bars: " in report.notes[0]


def test_one_class_only_and_one_row_only() -> None:
    report = evaluate(CLASSIFIER, X[:1], [1], passes=5)
    figure = report.figure("auc")
    assert (figure.value, figure.note) == (None, "only one class occurs")
    document = json.loads(report.to_json())
    shown = document["outputs"][0]["figures"]["monte_carlo"]
    assert shown["auc"] == {"value": None, "standard_error": None, "note": "only one class occurs"}
    assert shown["accuracy"]["standard_error"] is None


def test_a_single_row_of_a_regression() -> None:
    report = evaluate(NOISY, X[:1], Y[:1], passes=5)
    assert report.figure("r2").note == "all of the targets are alike"
    json.loads(report.to_json())


def test_a_baseline_is_compared_on_the_same_rows() -> None:
    other = model_of(mlp([4, 8, 3], [0.0, 0.4], last="Softmax", seed=9).onnx())
    classes = RANDOM.integers(0, 3, 60)
    report = evaluate(CLASSIFIER, X, classes, passes=20, baseline=other)
    alone = evaluate(other, X, classes, passes=20)
    assert list(report.outputs[0].figures) == [
        "deterministic", "monte_carlo", "baseline_deterministic", "baseline_monte_carlo"
    ]  # fmt: skip
    assert report.outputs[0].figures["baseline_monte_carlo"] == alone.outputs[0].figures["monte_carlo"]
    difference = report.outputs[0].differences["monte_carlo - baseline_monte_carlo"]["brier"]
    assert difference.value == pytest.approx(
        value(report, "brier", "monte_carlo") - value(alone, "brier", "monte_carlo")
    )
    with pytest.raises(InputError, match="does not answer what model/1 does: regression"):
        evaluate(CLASSIFIER, X, classes, baseline=NO_NOISE)


def test_blocks_of_rows_do_not_show(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = evaluate(NOISY, X, Y, passes=20)
    monkeypatch.setattr("dropserve_models.evaluation.answers._ROWS", 16)
    monkeypatch.setattr("dropserve_models.evaluation.answers._SAMPLES", 16 * 40)
    done: list[int] = []
    assert evaluate(NOISY, X, Y, passes=20, on_rows=done.append).to_json() == whole.to_json()
    assert sum(done) == 3 * 60


def test_many_passes_are_told_to_be_cut_for_the_crps() -> None:
    report = evaluate(NOISY, X[:3], Y[:3], passes=CRPS_PASSES + 10)
    assert report.notes == (f"The CRPS of Monte Carlo is that of the first {CRPS_PASSES} passes.",)


@pytest.mark.parametrize(
    ("model", "y", "message"),
    [
        (NOISY, Y[:, :1], r"the truth has shape \[60, 1\]; 60 rows of this model have \[60, 2\]"),
        (NOISY, np.where(np.arange(120).reshape(60, 2) == 7, np.nan, Y), "row 3: the target is not finite"),
        (NOISY, np.full((60, 2), "a"), "the targets are not numbers"),
        (CLASSIFIER, [7] * 60, "row 0: '7' is no class of the model"),
        (CLASSIFIER, ["x"] * 60, "row 0: 'x' is no class of the model"),
        (CLASSIFIER, [0.5] * 60, "row 0: '0.5' is no class of the model"),
        (CLASSIFIER, [0.0] * 59 + [np.nan], "row 59: 'nan' is no class of the model"),
        (CLASSIFIER, [0] * 59, r"the truth has shape \[59, 1\]"),
        (CLASSIFIER, [], r"the truth has shape \[0, 1\]; 60 rows of this model have \[60, 1\]"),
        (CLASSIFIER, None, r"the truth has shape \[1, 1\]"),
        (NOISY, [[1.0], [1.0, 2.0]], "the truth can't be read as an array"),
    ],
)
def test_wrong_truth(model: Model, y: object, message: str) -> None:
    with pytest.raises(InputError, match=message):
        evaluate(model, X, y)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"coverages": [1.0]}, "coverage 1 is not within"),
        ({"coverages": 0.9}, "coverages is 0.9; it must be a list of numbers"),
        ({"coverages": ["wide"]}, "it must be a list of numbers"),
        ({"passes": 0}, "passes is 0"),
        ({"passes": 1.5}, "passes is 1.5; it must be an integer"),
        ({"passes": None}, "passes is None; it must be an integer"),
        ({"seed": "x"}, "seed is 'x'; it must be an integer"),
        ({"seed": -1}, "seed is -1"),
    ],
)
def test_wrong_options_are_refused_before_anything_is_computed(
    options: dict[str, object], message: str
) -> None:
    done: list[int] = []
    with pytest.raises(InputError, match=message):
        evaluate(NOISY, X, Y, on_rows=done.append, **options)  # type: ignore[arg-type]
    assert not done
