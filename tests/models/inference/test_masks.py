"""Masks: the right rates, and no correlation that was not asked for."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from dropserve_models.inference.masks import dropped, fresh_seed, strata
from dropserve_models.prediction import Masks

RATES = [0.01, 0.05, 0.1, 0.25, 0.3, 1 / 3, 0.5, 0.55, 0.8, 0.95, 0.99]


def draw(
    seed: int, passes: int, units: int, rate: float, masks: Masks = "stratified", site: int = 0
) -> NDArray[np.bool_]:
    return dropped(seed, site, units, rate, strata(passes, masks))


def sizes_of(passes: int, masks: Masks = "stratified") -> list[int]:
    return [size for size, count in strata(passes, masks) for _ in range(count)]


def grouped(sizes: Sequence[int]) -> tuple[tuple[int, int], ...]:
    return tuple((size, len(list(equal))) for size, equal in groupby(sizes))


def starts(sizes: Sequence[int]) -> list[int]:
    return [sum(sizes[:number]) for number in range(len(sizes))]


@given(passes=st.integers(1, 1200))
def test_strata_add_up_to_the_passes_and_are_at_least_two(passes: int) -> None:
    sizes = sizes_of(passes)
    assert sum(sizes) == passes
    assert min(sizes) >= 1
    assert passes == 1 or len(sizes) >= 2, "a standard error needs two"
    assert sizes_of(passes, "independent") == [1] * passes


@pytest.mark.parametrize("masks", ["stratified", "independent"])
@pytest.mark.parametrize("rate", RATES)
@pytest.mark.parametrize("passes", [1, 5, 20, 37])
def test_every_pass_of_every_unit_drops_at_the_rate(masks: Masks, rate: float, passes: int) -> None:
    """In expectation over seeds, at each pass by itself: no place within a stratum is special."""
    seeds, units = 60, 800
    drops = np.stack([draw(seed, passes, units, rate, masks) for seed in range(seeds)])
    by_pass = drops.mean(axis=(0, 2))
    error = np.sqrt(rate * (1.0 - rate) / (seeds * units))
    np.testing.assert_array_less(np.abs(by_pass - rate), 4.5 * error)
    # Over all passes the error of a single unit's rate is that of seeds * passes draws at most.
    by_unit = drops.mean(axis=(0, 1))
    np.testing.assert_array_less(
        np.abs(by_unit - rate), 5.5 * np.sqrt(rate * (1 - rate) / (seeds * passes)) + 0.03
    )


@pytest.mark.parametrize("rate", RATES)
@pytest.mark.parametrize("passes", [2, 5, 19, 20, 37, 100, 137])
def test_a_unit_is_dropped_in_its_share_of_a_stratum(rate: float, passes: int) -> None:
    sizes = sizes_of(passes)
    drops = draw(3, passes, 300, rate)
    assert drops.shape == (passes, 300)
    for start, size in zip(starts(sizes), sizes, strict=True):
        counts = drops[start : start + size].sum(axis=0)
        share = rate * size
        low, high = np.floor(share + 1e-9), np.ceil(share - 1e-9)
        assert set(counts) <= {int(low), int(high)}
        # Which of the two is drawn so that the expectation is the share.
        assert abs(counts.mean() - share) < 4.5 * 0.5 / np.sqrt(300) + 1e-9


@pytest.mark.parametrize("masks", ["stratified", "independent"])
def test_units_sites_and_seeds_are_uncorrelated(masks: Masks) -> None:
    passes, units, rate = 2000, 24, 0.3
    streams = [
        draw(seed, passes, units, rate, masks, site)
        for seed, site in [(0, 0), (0, 1), (0, 2), (1, 0), (2**63, 0), (2**64 - 1, 0), (2**64 - 1, 1)]
    ]
    together = np.concatenate(streams, axis=1).astype(np.float64)
    correlation = np.corrcoef(together.T) - np.eye(together.shape[1])
    assert np.abs(correlation).max() < 5.5 / np.sqrt(passes)


@pytest.mark.parametrize("masks", ["stratified", "independent"])
def test_seeds_next_to_each_other_start_apart(masks: Masks) -> None:
    """The masks of one pass over 400 seeds: a seed that only shifts a stream would show here."""
    first = np.stack([draw(seed, 20, 24, 0.5, masks) for seed in range(400)]).astype(np.float64)
    flat = first.reshape(400, -1)
    for lag in (1, 2, 3):
        ahead, behind = flat[lag:] - 0.5, flat[:-lag] - 0.5
        assert abs((ahead * behind).mean() * 4.0) < 4.5 / np.sqrt(ahead.size)


def test_strata_are_independent_of_each_other() -> None:
    """A unit's drops in one pass tell nothing of those in the passes of another stratum."""
    sizes = sizes_of(40)
    drops = np.stack([draw(seed, 40, 50, 0.3) for seed in range(200)]) - 0.3
    sums = np.add.reduceat(drops, starts(sizes), axis=1)  # zero within a stratum where p B is whole
    np.testing.assert_allclose(sums, 0.0, atol=1e-9)
    between = (drops[:, 0] * drops[:, sizes[0]]).mean() / 0.21
    assert abs(between) < 4.5 / np.sqrt(200 * 50)
    within = (drops[:, 0] * drops[:, 1]).mean() / 0.21
    assert within == pytest.approx(-1.0 / (sizes[0] - 1), abs=4.5 / np.sqrt(200 * 50))


@pytest.mark.parametrize("rate", [0.05, 0.5, 0.99])
def test_the_first_passes_of_independent_masks_are_those_of_a_shorter_run(rate: float) -> None:
    full = draw(11, 137, 33, rate, "independent")
    for passes in (1, 2, 20, 100, 136):
        np.testing.assert_array_equal(draw(11, passes, 33, rate, "independent"), full[:passes])


def test_more_passes_keep_the_full_strata_of_a_shorter_run() -> None:
    short, long = sizes_of(40), sizes_of(90)
    assert long[: len(short)] == short
    np.testing.assert_array_equal(draw(11, 90, 33, 0.35)[:40], draw(11, 40, 33, 0.35))


@pytest.mark.parametrize("masks", ["stratified", "independent"])
@pytest.mark.parametrize("passes", [2, 3, 11, 20, 21, 101, 137])
def test_masks_do_not_depend_on_how_strata_are_grouped(passes: int, masks: Masks) -> None:
    sizes = sizes_of(passes, masks)
    first = starts(sizes)
    for seed in range(5):
        whole = dropped(seed, 1, 13, 0.35, strata(passes, masks))
        for together in (1, 2, 3):
            parts = [
                dropped(seed, 1, 13, 0.35, grouped(sizes[low : low + together]), low, first[low])
                for low in range(0, len(sizes), together)
            ]
            np.testing.assert_array_equal(np.concatenate(parts), whole)


def test_fresh_seeds_are_in_range_and_differ() -> None:
    seeds = {fresh_seed() for _ in range(100)}
    assert len(seeds) == 100
    assert all(0 <= seed < 2**64 for seed in seeds)
    assert max(seeds) > 2**60, "all 64 bits are used"
