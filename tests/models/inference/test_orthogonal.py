"""Draws that share their products: masks like any others, and what a product a draw would give."""

from __future__ import annotations

from itertools import count, product
from typing import Any

import numpy as np
import pytest
import torch

from dropserve_models.inference import mask_source, orthogonal, plan
from dropserve_models.inference.costs import ALWAYS_THINNED
from dropserve_models.prediction import MonteCarloOptions
from support.engines import engine_of
from support.exact import enumerate_masks, moments
from support.onnx_models import Array, mlp

DRAWS = [4, 8, 16]


@pytest.mark.parametrize(
    ("units", "draws", "groups"), [(3, 4, 3), (256, 8, 8), (100, 8, 10), (11, 8, 11), (17, 8, 0)]
)
def test_units_are_dealt_into_equal_groups(units: int, draws: int, groups: int) -> None:
    assert orthogonal.group_count(units, draws) == groups


@pytest.mark.parametrize(("units", "draws"), [(5, 4), (10, 8), (8, 8)])
def test_every_draw_has_all_masks_equally_often(units: int, draws: int) -> None:
    signs = np.array(list(product((False, True), repeat=units)))
    for draw in orthogonal.dropped(signs, draws).reshape(len(signs), draws, units).swapaxes(0, 1):
        assert len(np.unique(draw, axis=0)) == len(signs)


@pytest.mark.parametrize("draws", DRAWS)
def test_half_of_the_draws_drop_a_unit_and_a_quarter_two_of_different_columns(draws: int) -> None:
    signs = np.random.default_rng(0).random((3, draws - 1)) < 0.5
    dropped = orthogonal.dropped(signs, draws).reshape(3, draws, -1).astype(int)
    together = dropped.swapaxes(1, 2) @ dropped
    expected = np.full((draws - 1, draws - 1), draws // 4) + np.eye(draws - 1, dtype=int) * draws // 4
    np.testing.assert_array_equal(together, np.broadcast_to(expected, together.shape))


@pytest.mark.parametrize("units", [30, 60, 210])
@pytest.mark.parametrize("common", [False, True], ids=["activations a pass", "common activations"])
@pytest.mark.parametrize("draws", DRAWS)
def test_shared_products_are_those_of_the_masks(draws: int, common: bool, units: int) -> None:
    rng = np.random.default_rng(units)
    weight, bias = rng.normal(size=(4, units)), rng.normal(size=(1, 4, 1))
    batch = rng.normal(size=(1 if common else 3, units, 6))
    signs = rng.random((3, units)) < 0.5
    kept = ~orthogonal.dropped(signs, draws).reshape(3, draws, 1, units)
    expected = (weight * kept) @ batch[:, None] + bias
    found = orthogonal.product(
        torch.from_numpy(weight).float(),
        signs,
        torch.from_numpy(batch).float(),
        draws,
        torch.from_numpy(bias).float(),
    )
    np.testing.assert_allclose(found.numpy().reshape(expected.shape), expected, rtol=1e-4, atol=1e-5)


def test_large_requests_without_a_seed_are_unbiased(monkeypatch: pytest.MonkeyPatch) -> None:
    """Against all masks of a network that is thinned, and draws so, as a large one would be."""
    seeds, shared = count(), count()
    monkeypatch.setattr(plan, "ORTHOGONAL_WEIGHTS", 0)
    monkeypatch.setattr(mask_source, "fresh_seed", lambda: next(seeds))
    compute = orthogonal.product

    def counted(*args: Any) -> torch.Tensor:
        next(shared)
        return compute(*args)

    monkeypatch.setattr(orthogonal, "product", counted)
    network = mlp([3, 40, 8, 3], [0.25, 0.0, 0.5], last="Softmax", seed=4)
    rows: Array = np.random.default_rng(1).normal(size=(4, 3)).astype(np.float32)
    engine = engine_of(network.onnx())
    engine.costs = ALWAYS_THINNED
    answers = [engine.run(rows, MonteCarloOptions(10)) for _ in range(600)]
    assert next(shared) == 600
    truth = moments(*enumerate_masks(network, rows))
    for name in ("mean", "variance", "expected_entropy"):
        found = np.stack([getattr(answer, name) for answer in answers]).astype(np.float64)
        error = found.std(axis=0, ddof=1) / np.sqrt(len(found))
        np.testing.assert_array_less(np.abs(found.mean(axis=0) - getattr(truth, name)), 5.0 * error + 1e-6)


@pytest.mark.parametrize(
    ("passes", "rate", "outputs", "expected"),
    [
        (10, 0.5, 10, True),
        (10, 0.4, 10, False),
        (10, 0.5, 2, False),
        (25, 0.5, 10, True),
        (26, 0.5, 10, False),
    ],
)
def test_draws_share_products_where_that_pays(passes: int, rate: float, outputs: int, expected: bool) -> None:
    engine = engine_of(mlp([20, 256, 256, outputs], [0.0, 0.2, rate], last="Softmax").onnx())
    assert engine.plan.orthogonal_draws(MonteCarloOptions(passes)) is expected
