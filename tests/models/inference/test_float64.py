"""Float32 against float64: the same masks, taken through the network and the formulas in double precision."""

from __future__ import annotations

from dataclasses import fields
from functools import cache

import numpy as np
import pytest

from dropserve_models.prediction import Masks, MonteCarloOptions, Prediction
from support.onnx_models import Array, mlp
from support.summary import Summary, summarise
from support.ways import WAYS, Drawn, InBlocks, Way

NETWORKS = {
    "784-256-256-10": mlp([784, 256, 256, 10], [0.0, 0.2, 0.5], last="Softmax"),
    "30-64-64-2": mlp([30, 64, 64, 2], [0.1, 0.2, 0.5], last="Softmax"),
    "10-100-100-1": mlp([10, 100, 100, 1], [0.0, 0.5, 0.5]),
    "10-100-100-1, sigmoid": mlp([10, 100, 100, 1], [0.05, 0.5, 0.3], last="Sigmoid"),
}
CASES: list[tuple[int, Masks]] = [
    (10, "stratified"), (37, "stratified"), (100, "stratified"), (60, "independent")
]  # fmt: skip


@cache
def rows(name: str) -> Array:
    features = len(NETWORKS[name].weights[0])
    return np.random.default_rng(7).normal(size=(9, features)).astype(np.float32)


@cache
def way_of(way: str, name: str) -> Way:
    return WAYS[way](NETWORKS[name].onnx(), rows(name))


def assert_agrees(answer: Prediction, exact: Summary, chosen: slice | list[int] = slice(None)) -> None:
    for field in fields(Summary):
        found, expected = getattr(answer, field.name), getattr(exact, field.name)
        assert (found is None) is (expected is None), field.name
        if expected is not None:
            # The two errors are differences of strata, which may be next to nothing by chance.
            least = 1e-5 * np.sqrt(exact.variance) if "error" in field.name else np.zeros_like(expected)
            difference = np.abs(found - expected)[chosen]
            np.testing.assert_array_less(
                difference, (1e-4 * np.abs(expected) + least)[chosen], err_msg=field.name
            )


@pytest.mark.parametrize(("passes", "masks"), CASES)
@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("way", WAYS)
def test_what_is_reported_agrees_with_float64(way: str, name: str, passes: int, masks: Masks) -> None:
    network, options = NETWORKS[name], MonteCarloOptions(passes, 11, masks=masks)
    computing = way_of(way, name)
    answer = computing.ask(rows(name), options)
    closed = options.integrate and not network.last
    assert_agrees(answer, summarise(network, rows(name), computing.drawn(options), closed=closed))
    if isinstance(computing, InBlocks) and network.last:
        eight_draws_at_a_half = passes == 10 and network.last == "Softmax"
        assert computing.shares_products is (eight_draws_at_a_half and "orthogonal" in way)


@pytest.mark.parametrize(("name", "tolerance"), [("30-64-64-2", 0.06), ("10-100-100-1", 0.02)])
@pytest.mark.parametrize("way", [way for way in WAYS if way != "in one graph"])
def test_rows_that_stop_early_agree_with_float64(way: str, name: str, tolerance: float) -> None:
    """Each is what the passes say that it took."""
    network, options = NETWORKS[name], MonteCarloOptions(200, 11, mean_tolerance=tolerance)
    computing = way_of(way, name)
    answer = computing.ask(rows(name), options)
    drawn = computing.drawn(options)
    assert answer.row_passes is not None
    assert len(set(answer.row_passes.tolist())) > 1
    for passes in set(answer.row_passes.tolist()):
        taken = Drawn([mask[:passes] for mask in drawn.masks], drawn.strata[:passes])
        exact = summarise(network, rows(name), taken, closed=not network.last)
        assert_agrees(answer, exact, np.flatnonzero(answer.row_passes == passes).tolist())
