"""Masks drawn without a seed: stratified as those with one are, and of the same distribution."""

from __future__ import annotations

import numpy as np
import pytest

from dropserve_models.inference.masks import Strata, count_passes, strata
from dropserve_models.inference.program import Site
from dropserve_models.inference.small.masks import draw_set, stratum_of_passes
from support.engines import Array

UNITS = 40


def drawn(rate: float, groups: Strata, seed: int, draws: int = 1) -> Array:
    """The masks of a tail, [passes, draws, units]."""
    (masks,) = draw_set([Site(rate, UNITS)], seed, groups, 0, draws).arrays.values()
    assert masks.dtype == np.float32
    assert masks.flags["C_CONTIGUOUS"]
    drawn: Array = masks[0]
    return drawn


@pytest.mark.parametrize("passes", [4, 10, 19, 20, 37, 100, 110])
@pytest.mark.parametrize("rate", [0.5, 0.2, 0.33, 0.01, 0.95])
def test_a_stratum_drops_every_unit_in_its_share_of_the_passes(rate: float, passes: int) -> None:
    groups = strata(passes, "stratified")
    masks = drawn(rate, groups, 1)[:, 0]
    assert masks.shape == (passes, UNITS)
    assert set(np.unique(masks)) <= {np.float32(0.0), np.float32(1.0 / (1.0 - rate))}
    belongs = stratum_of_passes(groups)
    sizes = [size for size, count in groups for _ in range(count)]
    assert np.bincount(belongs).tolist() == sizes
    for stratum, size in enumerate(sizes):
        drops = (masks[belongs == stratum] == 0.0).sum(axis=0)
        assert (np.floor(rate * size + 1e-9) <= drops).all()
        assert (drops <= np.ceil(rate * size - 1e-9)).all()


@pytest.mark.parametrize("groups", [((1, 30),), ((10, 3),), ((15, 2),), ((23, 1), (7, 1))], ids=str)
@pytest.mark.parametrize("rate", [0.5, 0.2, 0.33, 0.05, 0.97])
def test_every_unit_is_dropped_at_its_rate_in_every_pass_independently_of_others(
    rate: float, groups: Strata
) -> None:
    sets = 600
    drops = np.stack([drawn(rate, groups, seed)[:, 0] == 0.0 for seed in range(sets)]).astype(np.float64)
    error = np.sqrt(rate * (1.0 - rate) / (sets * UNITS))
    np.testing.assert_array_less(np.abs(drops.mean(axis=(0, 2)) - rate), 5.0 * error)
    pairs = drops[:, :, 0::2] * drops[:, :, 1::2]
    spread = np.sqrt(rate**2 * (1.0 - rate**2) / (sets * UNITS / 2))
    np.testing.assert_array_less(np.abs(pairs.mean(axis=(0, 2)) - rate**2), 5.0 * spread)


def test_which_of_the_passes_drop_a_unit_is_equally_likely() -> None:
    """All 45 pairs of passes, for strata of 10 at a rate of .2."""
    draws = np.concatenate([drawn(0.2, ((10, 50),), seed)[:, 0].reshape(10, -1) for seed in range(20)], 1)
    pairs = np.array([np.flatnonzero(column == 0.0) for column in draws.T])
    _, counts = np.unique(pairs, axis=0, return_counts=True)
    expected = len(pairs) / 45
    assert len(counts) == 45
    assert ((counts - expected) ** 2 / expected).sum() < 44 + 5 * np.sqrt(2 * 44)


def test_the_draws_of_a_pass_are_a_stratum() -> None:
    masks = drawn(0.5, strata(20, "stratified"), 3, draws=8)
    assert masks.shape == (20, 8, UNITS)
    assert ((masks == 0.0).sum(axis=1) == 4).all()


def test_a_tail_that_nothing_reads_is_not_drawn() -> None:
    sites = [Site(0.2, 5), Site(0.5, 7)]
    assert [array.shape for array in draw_set(sites, 0, ((10, 2),), 1, 0).arrays.values()] == [(1, 20, 5)]
    both = draw_set(sites, 0, ((10, 2),), 1, 3)
    assert [array.shape for array in both.arrays.values()] == [(1, 20, 5), (1, 20, 3, 7)]
    assert both.nbytes == 4 * (20 * 5 + 20 * 3 * 7)


def test_seeds_differ() -> None:
    assert (drawn(0.5, ((10, 10),), 1) != drawn(0.5, ((10, 10),), 2)).any()
    assert count_passes(((10, 10),)) == 100
