"""How many masks of the last Dropout a pass draws, and how they are stratified."""

from __future__ import annotations

import numpy as np
import pytest

from dropserve_models.inference.blocks import blocks, draw_masks
from dropserve_models.inference.masks import strata
from dropserve_models.inference.plan import DRAWS_IN_ALL, MAX_DRAWS, Plan, make_plan
from dropserve_models.prediction import MonteCarloOptions
from support.engines import blueprint_of
from support.onnx_models import mlp


def plan(rate: float, last: str = "Softmax") -> Plan:
    program = blueprint_of(mlp([20, 256, 256, 5], [0.0, 0.2, rate], last=last).onnx()).program
    assert program is not None
    return make_plan(program)


@pytest.mark.parametrize(
    ("passes", "rate", "draws"),
    [
        (1, 0.5, 8),
        (10, 0.5, 8),
        (14, 0.5, 6),
        (14, 0.3, 7),
        (16, 0.2, 5),
        (25, 0.5, 4),
        (50, 0.5, 2),
        (51, 0.5, 1),
    ],
)
def test_draws_are_about_a_hundred_in_all_and_drop_every_unit_equally_often(
    passes: int, rate: float, draws: int
) -> None:
    found = plan(rate).draws_a_pass(MonteCarloOptions(passes))
    assert found == draws
    assert found <= MAX_DRAWS
    assert found * passes <= max(DRAWS_IN_ALL, passes)


def test_a_single_draw_is_not_integrated() -> None:
    assert plan(0.5).integrates(MonteCarloOptions(50))
    assert not plan(0.5).integrates(MonteCarloOptions(51))
    assert plan(0.5, last="").integrates(MonteCarloOptions(51)), "in closed form it costs next to nothing"
    assert not plan(0.5).integrates(MonteCarloOptions(10, return_samples=True))


def test_an_adaptive_request_draws_as_one_of_few_passes_does() -> None:
    assert plan(0.5).draws_a_pass(MonteCarloOptions(5000, mean_tolerance=0.1)) == 4


def test_the_draws_of_a_pass_are_a_stratum() -> None:
    program = blueprint_of(mlp([20, 256, 256, 5], [0.0, 0.2, 0.5], last="Softmax").onnx()).program
    assert program is not None
    (block,) = blocks(strata(20, "stratified"))
    masks = draw_masks(program.sites, 3, block, tail=1, draws=8)
    kept = masks.binary(1).numpy().reshape(20, 8, 256)
    assert (kept.sum(axis=1) == 4).all()
    between = np.corrcoef(kept[:, 0].ravel(), kept[:, 1].ravel())[0, 1]
    assert between == pytest.approx(-1 / 7, abs=0.05), "4 of 8 places, all equally likely"
