"""How many masks of the last Dropout a pass draws, and how they are stratified."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import pytest

from dropserve_models.inference.blocks import BlockMasks, blocks, draw_masks, quick_masks
from dropserve_models.inference.masks import strata
from dropserve_models.inference.plan import DRAWS_IN_ALL, MANY_PASSES, MAX_DRAWS, Plan, make_plan
from dropserve_models.inference.program import Site
from dropserve_models.prediction import MonteCarloOptions
from support.engines import blueprint_of
from support.onnx_models import mlp

SITES = (Site(0.2, 256), Site(0.5, 256))


def plan(rate: float, last: str = "Softmax") -> Plan:
    program = blueprint_of(mlp([20, 256, 256, 5], [0.0, 0.2, rate], last=last).onnx()).program
    assert program is not None
    return make_plan(program)


@pytest.mark.parametrize(
    ("passes", "rate", "draws"),
    [
        (1, 0.5, 8),
        (10, 0.5, 8),
        (25, 0.5, 8),
        (26, 0.5, 6),
        (28, 0.3, 7),
        (32, 0.2, 5),
        (50, 0.5, 4),
        (99, 0.5, 2),
        (100, 0.5, 1),
        (5000, 0.5, 1),
    ],
)
def test_draws_are_bounded_in_all_and_drop_every_unit_equally_often(
    passes: int, rate: float, draws: int
) -> None:
    found = plan(rate).draws_a_pass(MonteCarloOptions(passes))
    assert found == draws
    assert found <= MAX_DRAWS
    assert found * passes <= max(DRAWS_IN_ALL, passes)


def test_a_single_draw_is_not_integrated() -> None:
    few, many = MonteCarloOptions(MANY_PASSES - 1), MonteCarloOptions(MANY_PASSES)
    assert plan(0.5).integrates(few)
    assert not plan(0.5).integrates(many)
    assert plan(0.5, last="").integrates(many), "in closed form it costs next to nothing"
    assert not plan(0.5).integrates(MonteCarloOptions(10, return_samples=True))
    most_after = mlp([20, 16, 64, 64, 5], [0.0, 0.5, 0.0, 0.0], last="Softmax")
    program = blueprint_of(most_after.onnx()).program
    assert program is not None
    dear = make_plan(program)
    assert dear.draws_a_pass(few) == 1
    assert not dear.integrates(few)


def test_an_adaptive_request_draws_as_one_of_few_passes_does() -> None:
    assert plan(0.5).draws_a_pass(MonteCarloOptions(5000, mean_tolerance=0.1)) == 8


@pytest.mark.parametrize("draw", [draw_masks, quick_masks])
def test_the_draws_of_a_pass_are_a_stratum(draw: Callable[..., Iterator[BlockMasks]]) -> None:
    (masks,) = draw(SITES, 3, blocks(strata(20, "stratified")), tail=1, draws=8)
    kept = masks.binary(1).numpy().reshape(20, 8, 256)
    assert (kept.sum(axis=1) == 4).all()
    between = np.corrcoef(kept[:, 0].ravel(), kept[:, 1].ravel())[0, 1]
    assert between == pytest.approx(-1 / 7, abs=0.05), "4 of 8 places, all equally likely"


@pytest.mark.parametrize("draw", [draw_masks, quick_masks])
@pytest.mark.parametrize("limit", [20, 100])
def test_every_stratum_drops_a_unit_in_its_share_of_the_passes(
    draw: Callable[..., Iterator[BlockMasks]], limit: int
) -> None:
    parts = list(draw(SITES, 3, blocks(strata(50, "stratified"), limit), tail=1, draws=1))
    kept = [np.concatenate([masks.binary(site).numpy() for masks in parts]) for site in (0, 1)]
    for masks, drops in zip(kept, (2, 5), strict=True):
        assert (masks.reshape(5, 10, 256).sum(axis=1) == 10 - drops).all()
        assert len(np.unique(masks, axis=0)) == 50


def test_independent_masks_drawn_without_a_seed_drop_units_at_their_rates() -> None:
    (masks,) = quick_masks(SITES, 3, blocks(strata(100, "independent")), tail=1, draws=1)
    for site, rate in enumerate((0.2, 0.5)):
        kept = masks.binary(site).numpy()
        assert kept.shape == (100, 256)
        assert kept.mean() == pytest.approx(1 - rate, abs=5 * np.sqrt(rate * (1 - rate) / kept.size))
        assert kept.sum(axis=0).std() == pytest.approx(np.sqrt(100 * rate * (1 - rate)), rel=0.25)
