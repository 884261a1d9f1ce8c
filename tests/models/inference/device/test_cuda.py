"""On a CUDA device: what only it can show. Skipped where there is none."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from dropserve_models.inference.device.engine import DeviceEngine
from dropserve_models.model import Model
from dropserve_models.prediction import MonteCarloOptions, Prediction
from support.devices import device_engine_of
from support.engines import Array, blueprint_of, engine_of
from support.onnx_models import mlp

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")

NETWORKS = {
    "784-256-256-10": (mlp([784, 256, 256, 10], [0.0, 0.2, 0.5], last="Softmax").onnx(), 784),
    "30-64-64-2": (mlp([30, 64, 64, 2], [0.0, 0.2, 0.5], last="Softmax").onnx(), 30),
    "10-100-100-1": (mlp([10, 100, 100, 1], [0.0, 0.5, 0.5]).onnx(), 10),
    "9-300-300-3, input dropout": (mlp([9, 300, 300, 3], [0.1, 0.3, 0.5], last="Softmax").onnx(), 9),
}
OPTIONS = {
    "integrated": MonteCarloOptions(100, 3),
    "samples": MonteCarloOptions(37, 4, (0.1, 0.5), return_samples=True),
    "independent": MonteCarloOptions(130, 5, masks="independent"),
}
ROWS = 700


def features(name: str, rows: int = ROWS) -> Array:
    return np.random.default_rng(0).normal(size=(rows, NETWORKS[name][1])).astype(np.float32)


def cuda_engine(name: str, memory_bytes: int = 2**28) -> DeviceEngine:
    return device_engine_of(NETWORKS[name][0], memory_bytes, device=torch.device("cuda", 0))


def largest_difference(ours: Prediction, theirs: Prediction) -> float:
    """Over all fields that are arrays, relative to the largest value of each."""
    differences = [0.0]
    for name in theirs.__slots__:
        found, expected = getattr(ours, name), getattr(theirs, name)
        if isinstance(expected, np.ndarray):
            differences.append(
                float(np.abs(found - expected).max() / max(float(np.abs(expected).max()), 1e-3))
            )
    return max(differences)


@pytest.mark.parametrize("name", NETWORKS)
def test_deterministic_answers_agree_with_the_cpu(name: str) -> None:
    ours, theirs = (Model(blueprint_of(NETWORKS[name][0], device)) for device in ("cuda", "cpu"))
    assert ours.info.provider == "CUDAExecutionProvider"
    np.testing.assert_allclose(ours.run(features(name)).mean, theirs.run(features(name)).mean, atol=1e-5)


@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
@pytest.mark.parametrize("name", NETWORKS)
def test_the_same_seed_gives_the_cpus_answer(name: str, options: MonteCarloOptions) -> None:
    expected = engine_of(NETWORKS[name][0]).run(features(name), options)
    ours = cuda_engine(name)
    for _ in range(3):  # as it is, recorded, replayed
        assert largest_difference(ours.run(features(name), options), expected) < 1e-4


@pytest.mark.parametrize("name", NETWORKS)
def test_a_model_on_cuda_computes_there(name: str, caplog: pytest.LogCaptureFixture) -> None:
    model = Model(blueprint_of(NETWORKS[name][0], "cuda"))
    model.prepare_monte_carlo()
    assert model.monte_carlo_device == "cuda:0"
    assert not caplog.records, "blocks can be recorded"
    answer = model.predict(features(name), passes=50, seed=1)
    expected = engine_of(NETWORKS[name][0]).run(features(name), MonteCarloOptions(50, 1))
    assert largest_difference(answer, expected) < 1e-4


@pytest.mark.parametrize("name", NETWORKS)
def test_graphs_are_replayed_with_new_masks(name: str) -> None:
    ours, x = cuda_engine(name), features(name, 3)
    options = MonteCarloOptions(20)
    answers = [ours.run(x, options).mean for _ in range(10)]
    assert ours.graphs >= 2, "masks and passes are recorded"
    assert len({answer.tobytes() for answer in answers}) == 10


@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
@pytest.mark.parametrize("name", NETWORKS)
def test_same_bytes_for_any_rows(name: str, options: MonteCarloOptions) -> None:
    """What a seed promises on one device."""
    ours, x = cuda_engine(name), features(name)
    whole = ours.run(x, options)
    assert whole.variance is not None
    for start, stop in [(0, 1), (0, 16), (5, 90), (255, 258), (300, ROWS), (0, ROWS)]:
        part = ours.run(x[start:stop], options)
        assert part.variance is not None
        assert part.mean.tobytes() == whole.mean[start:stop].tobytes(), f"rows {start} to {stop}"
        assert part.variance.tobytes() == whole.variance[start:stop].tobytes(), f"rows {start} to {stop}"


def test_requests_together_are_as_good_as_alone() -> None:
    name = "10-100-100-1"
    ours, x = cuda_engine(name), features(name, 2)
    truth = engine_of(NETWORKS[name][0]).run(x, MonteCarloOptions(20_000, 1))
    assert truth.std is not None
    answers = ours.run_together([x] * 40, MonteCarloOptions(20))
    errors = np.stack([answer.mean - truth.mean for answer in answers]) / truth.std
    assert len({answer.mean.tobytes() for answer in answers}) == 40
    assert (np.sqrt((errors**2).mean(axis=0)) < 1.5 / np.sqrt(20)).all()


@pytest.mark.parametrize(
    ("rows", "options"),
    [
        (20_000, MonteCarloOptions(100, 1)),
        (20_000, MonteCarloOptions(200, 1, mean_tolerance=0.1)),
        (64, MonteCarloOptions(5000, 1, (0.05, 0.95))),
    ],
    ids=["rows", "adaptive", "quantiles"],
)
def test_a_request_stays_within_its_limit(rows: int, options: MonteCarloOptions) -> None:
    limit = 128 * 2**20
    ours = cuda_engine("30-64-64-2", limit)
    ours.run(features("30-64-64-2", 16), MonteCarloOptions(10))
    torch.cuda.synchronize()
    before = torch.cuda.memory_allocated()
    torch.cuda.reset_peak_memory_stats()
    ours.run(features("30-64-64-2", rows), options)
    assert torch.cuda.max_memory_allocated() - before < limit
