"""A layer without dropout, found from what its strata lose."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from dropserve_models.inference.complement import drops_each, subtract, without_dropout
from dropserve_models.inference.masks import dropped, strata
from dropserve_models.inference.runner import Runner
from dropserve_models.prediction import Masks, MonteCarloOptions
from support.engines import Array, engine_of
from support.onnx_models import mlp


@pytest.mark.parametrize(
    ("rate", "size", "drops"),
    [(0.2, 5, 1), (0.2, 10, 2), (0.5, 2, 1), (0.25, 10, 0), (0.2, 1, 0), (0.05, 10, 0)],
)
def test_only_a_whole_number_of_drops_is_the_same_for_all_units(rate: float, size: int, drops: int) -> None:
    assert drops_each(rate, size) == drops


@pytest.mark.parametrize("seeded", [False, True])
@pytest.mark.parametrize(("rate", "size"), [(0.2, 5), (0.2, 10), (0.5, 4)])
def test_what_a_stratum_loses_adds_up(rate: float, size: int, seeded: bool) -> None:
    rng = np.random.default_rng(0)
    weight, x, bias = rng.normal(size=(6, 30)), rng.normal(size=(30, 16)), rng.normal(size=(1, 6, 1))
    marks = dropped(3, 0, 30, rate, ((size, 2),))
    lost = torch.from_numpy((weight * marks[:, None, :]) @ x).float()
    args = (size, drops_each(rate, size), torch.from_numpy(bias).float())
    full = without_dropout(lost, *args, seeded=seeded)
    np.testing.assert_allclose(full.numpy(), (weight @ x)[None] + bias, rtol=1e-4, atol=1e-5)
    kept = (weight * ~marks[:, None, :]) @ x + bias
    np.testing.assert_allclose(subtract(full, lost).numpy(), kept, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("passes", "masks", "needed"),
    [(10, "stratified", 0), (30, "stratified", 0), (8, "stratified", 1), (10, "independent", 1)],
)
def test_it_is_computed_on_its_own_only_where_strata_do_not_tell(
    passes: int, masks: Masks, needed: int
) -> None:
    engine = engine_of(mlp([20, 256, 256, 10], [0.0, 0.2, 0.5], last="Softmax").onnx())
    runner: Runner = engine._runner
    boundary = {name: torch.ones(256, 1, 16) for name in engine.program.boundary}
    integrate = engine.plan.integrates(MonteCarloOptions(passes, masks=masks))
    known = runner.prepare(boundary, strata(passes, masks), integrate)
    assert len(known) - len(boundary) == needed


@pytest.mark.parametrize("seed", [None, 5])
def test_large_requests_answer_as_with_it_computed(seed: int | None, monkeypatch: pytest.MonkeyPatch) -> None:
    network = mlp([20, 256, 256, 10], [0.0, 0.2, 0.5], last="Softmax")
    rows: Array = np.random.default_rng(1).normal(size=(128, 20)).astype(np.float32)
    monkeypatch.setattr("dropserve_models.inference.mask_source.fresh_seed", lambda: 7)
    options = MonteCarloOptions(10, seed)
    found = engine_of(network.onnx()).run(rows, options)
    monkeypatch.setattr("dropserve_models.inference.runner.drops_each", lambda rate, size: 0)
    expected = engine_of(network.onnx()).run(rows, options)
    assert found.variance is not None
    assert expected.variance is not None
    np.testing.assert_allclose(found.mean, expected.mean, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(found.variance, expected.variance, rtol=1e-3, atol=1e-8)
