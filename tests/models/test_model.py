"""A loaded model: both modes of answering, its options, and what never leaves it."""

from __future__ import annotations

import gc
import os
import subprocess
import sys
import weakref
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dropserve_models import load
from dropserve_models.errors import InputError, MemoryLimitError, MonteCarloUnavailable
from dropserve_models.prediction import MonteCarloOptions, Prediction
from support.engines import model_of, onnx_runtime
from support.onnx_models import Array, constant, mlp, model, node, publish

CLASSIFIER = mlp([6, 20, 20, 3], [0.0, 0.2, 0.5], last="Softmax").onnx()
REGRESSION = mlp([6, 20, 20, 2], [0.1, 0.2, 0.5]).onnx()
BINARY = mlp([6, 20, 1], [0.0, 0.5], last="Sigmoid").onnx()
X: Array = np.random.default_rng(0).normal(size=(7, 6)).astype(np.float32)


def arrays(prediction: Prediction) -> dict[str, np.ndarray]:
    values = {name: getattr(prediction, name) for name in Prediction.__slots__}
    return {name: value for name, value in values.items() if isinstance(value, np.ndarray)}


def test_load_reads_a_folder_that_another_tool_wrote(tmp_path: Path) -> None:
    loaded = load(publish(tmp_path, "made_elsewhere", CLASSIFIER, version=3), device="cpu")
    info = loaded.info
    assert (info.name, info.version, info.task) == ("made_elsewhere", 3, "multiclass")
    assert info.feature_names == tuple(f"feature_{number}" for number in range(6))
    assert info.output_names == ("0", "1", "2")
    assert info.drop_rates == (0.2, 0.5)
    assert not info.predicts_noise
    assert info.provider == "CPUExecutionProvider"
    assert loaded.monte_carlo_unavailable is None


@pytest.mark.parametrize(
    ("data", "task", "names"),
    [
        (CLASSIFIER, "multiclass", ("0", "1", "2")),
        (REGRESSION, "regression", ("output_0", "output_1")),
        (BINARY, "binary", ("0", "1")),
        (mlp([6, 5, 2], [0.0, 0.5], last="Softmax").onnx(), "binary", ("0", "1")),
    ],
)
def test_the_task_is_read_off_the_last_operation(data: bytes, task: str, names: tuple[str, ...]) -> None:
    info = model_of(data).info
    assert info.task == task
    assert info.output_names == names


@pytest.mark.parametrize("data", [CLASSIFIER, REGRESSION], ids=["classifier", "regression"])
def test_a_point_prediction_is_onnx_runtimes(data: bytes) -> None:
    answer = model_of(data).predict(X)
    np.testing.assert_array_equal(answer.mean, onnx_runtime(data, X)[0])
    assert answer.passes == 0
    assert set(arrays(answer)) == {"mean"}
    assert answer.std is None


def test_a_single_sigmoid_is_answered_as_two_classes() -> None:
    loaded = model_of(BINARY)
    p = onnx_runtime(BINARY, X)[0]
    np.testing.assert_allclose(loaded.predict(X).mean, np.hstack([1.0 - p, p]), rtol=1e-6)
    bars = loaded.predict(X, passes=50, seed=1, quantiles=[0.1, 0.9], return_samples=True)
    assert bars.variance is not None
    assert bars.samples is not None
    assert bars.mean.shape == bars.variance.shape == (7, 2)
    assert bars.samples.shape == (50, 7, 2)
    np.testing.assert_allclose(bars.mean.sum(axis=1), 1.0, rtol=1e-5)
    np.testing.assert_allclose(bars.samples.sum(axis=2), 1.0, rtol=1e-5)
    np.testing.assert_allclose(bars.variance[:, 0], bars.variance[:, 1], rtol=1e-3)


def test_which_fields_are_answered() -> None:
    moments = {"mean", "variance", "standard_error"}
    entropies = {"predictive_entropy", "expected_entropy", "mutual_information"}
    assert moments <= set(arrays(model_of(REGRESSION).predict(X, passes=20)))
    assert not entropies & set(arrays(model_of(REGRESSION).predict(X, passes=20)))
    assert moments | entropies <= set(arrays(model_of(CLASSIFIER).predict(X, passes=20)))
    more = arrays(model_of(CLASSIFIER).predict(X, passes=20, quantiles=(0.5,), return_samples=True))
    assert {"quantiles", "samples"} <= set(more)
    for name, array in more.items():
        assert array.dtype == np.float32, name
        assert array.flags.c_contiguous, name
        assert np.isfinite(array).all(), name


@pytest.mark.parametrize("masks", ["independent", "stratified"])
def test_a_single_pass_has_a_variance(masks: Any) -> None:
    for data in (CLASSIFIER, REGRESSION, BINARY):
        answer = model_of(data).predict(X, passes=1, seed=1, masks=masks)
        assert answer.passes == 1
        assert answer.variance is not None
        assert answer.std is not None
        assert (answer.variance >= 0.0).all()
        for name, array in arrays(answer).items():
            assert np.isfinite(array).all(), name


@pytest.mark.parametrize("masks", ["independent", "stratified"])
@pytest.mark.parametrize("passes", [1, 2, 3, 20, 100])
@pytest.mark.parametrize("last", ["", "Sigmoid", "Softmax"])
def test_layers_that_are_dropped_whole_still_answer(passes: int, last: str, masks: Any) -> None:
    """At p = .99 most passes of a layer of two units keep nothing of it."""
    data = mlp([6, 2, 2, 1 if last == "Sigmoid" else 2], [0.99, 0.99, 0.99], last=last, seed=2).onnx()
    loaded = model_of(data)
    for seed in range(5):
        answer = loaded.predict(X, passes=passes, seed=seed, masks=masks)
        for name, array in arrays(answer).items():
            assert np.isfinite(array).all(), name


def test_heteroscedastic_models_answer_both_parts_of_the_variance() -> None:
    nodes = [
        node("Dropout", "features half", "d"),
        node("Gemm", "d w", "heads"),
        node("Split", "heads", "mean log_variance", axis=1),
        node("Exp", "log_variance", "noise_variance"),
    ]
    w = np.random.default_rng(1).normal(size=(6, 4)) * 0.3
    data = model(nodes, [constant("half", 0.5), constant("w", w)], 6, {"mean": 2, "noise_variance": 2})
    loaded = model_of(data)
    assert loaded.info.predicts_noise
    mean, noise = onnx_runtime(data, X)
    plain = loaded.predict(X)
    assert plain.aleatoric_variance is not None
    assert plain.predictive_variance is not None
    np.testing.assert_array_equal(plain.aleatoric_variance, noise)
    np.testing.assert_array_equal(plain.predictive_variance, noise)
    np.testing.assert_array_equal(plain.mean, mean)
    bars = loaded.predict(X, passes=4000, seed=1)
    # E exp(sum m_i x_i w_i), m_i = 0 or 2: a product over the inputs.
    expected = ((1.0 + np.exp(2.0 * X[:, :, None] * w[:, 2:])) / 2.0).prod(axis=1)
    assert bars.aleatoric_variance is not None
    assert bars.variance is not None
    assert bars.predictive_variance is not None
    np.testing.assert_allclose(bars.aleatoric_variance, expected, rtol=0.25)
    np.testing.assert_array_equal(bars.predictive_variance, bars.variance + bars.aleatoric_variance)


def test_features_are_checked() -> None:
    with pytest.raises(InputError, match=r"shape \[7, 5\].*\[rows, 6\]"):
        model_of(REGRESSION).predict(X[:, :5])
    with pytest.raises(InputError, match=r"row 0, column 1 \('feature_1'\) is nan"):
        model_of(REGRESSION).predict([[0.0, np.nan, 0.0, 0.0, 0.0, 0.0]], passes=10)


def test_samples_beyond_the_memory_limit_are_refused_with_what_they_take() -> None:
    loaded = model_of(REGRESSION, memory_bytes=40 * 2**20)
    with pytest.raises(MemoryLimitError, match=r"1000000 samples of 7 rows take 56,000,000 bytes") as caught:
        loaded.predict(X, passes=1_000_000, return_samples=True)
    assert "41,943,040" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_limit_too_small_for_one_row_is_refused_with_a_limit_that_is_enough() -> None:
    with pytest.raises(MemoryLimitError, match=r"1,000 bytes|a request may use 1,000") as caught:
        model_of(REGRESSION, memory_bytes=1000).predict(X[:1], passes=10)
    assert "\n" not in str(caught.value)


def test_a_model_without_dropout_answers_point_predictions_only() -> None:
    data = mlp([6, 5, 2], [0.0, 0.0]).onnx()
    loaded = model_of(data)
    assert loaded.monte_carlo_unavailable is not None
    assert "no Dropout" in loaded.monte_carlo_unavailable
    assert loaded.info.drop_rates == ()
    np.testing.assert_array_equal(loaded.predict(X).mean, onnx_runtime(data, X)[0])
    for ask in (lambda: loaded.predict(X, passes=10), loaded.prepare_monte_carlo):
        with pytest.raises(MonteCarloUnavailable, match="model 'model'"):
            ask()


def test_first_monte_carlo_requests_may_come_all_at_once() -> None:
    loaded = model_of(CLASSIFIER)
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda _: loaded.predict(X, passes=20, seed=4).mean.tobytes(), range(16)))
    assert len(set(answers)) == 1


ISOLATED = """
import sys
import numpy as np
from dropserve_models import load
loaded = load(sys.argv[1], device="cpu")
assert loaded.info.drop_rates == (0.2, 0.5)
assert loaded.monte_carlo_unavailable is None
loaded.predict(np.zeros((2, 6)))
assert "torch" not in sys.modules, "a server of point predictions must not pay for torch"
loaded.predict(np.zeros((2, 6)), passes=10)
assert "torch" in sys.modules
"""


def test_torch_is_imported_by_the_first_monte_carlo_request_only(tmp_path: Path) -> None:
    folder = publish(tmp_path, "model", CLASSIFIER)
    ran = subprocess.run(
        [sys.executable, "-c", ISOLATED, str(folder)],
        capture_output=True, text=True, timeout=120, check=False, env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert ran.returncode == 0, ran.stderr


def test_a_model_is_gone_with_its_last_reference(tmp_path: Path) -> None:
    """A server freezes its garbage collector: what needs it to be freed would stay for good."""
    loaded = load(publish(tmp_path, "model", CLASSIFIER), device="cpu")
    loaded.run(np.zeros((1, len(loaded.info.feature_names)), np.float32), MonteCarloOptions(passes=4))
    gone = weakref.ref(loaded)
    gc.disable()
    try:
        del loaded
        assert gone() is None
    finally:
        gc.enable()
