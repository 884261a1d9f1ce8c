"""Mask sets kept between requests: bounded in memory, reused as rarely as promised."""

from __future__ import annotations

from collections import Counter
from itertools import count, pairwise

import numpy as np
import torch

from dropserve_models.inference.bank import SLOTS, USES, MaskBank
from dropserve_models.inference.blocks import BlockMasks, RequestMasks
from dropserve_models.inference.program import Site

SITES = (Site(0.5, 100),)


def masks(_: int = 0) -> RequestMasks:
    return RequestMasks([BlockMasks(SITES, [np.zeros((10, 100), np.bool_)], ((10, 1),), 1, slice(0, 10))])


def test_a_seed_is_drawn_once() -> None:
    bank = MaskBank(10**6)
    first = bank.seeded(7, "kind", masks)
    assert bank.seeded(7, "kind", masks) is first
    assert bank.seeded(8, "kind", masks) is not first
    assert bank.seeded(7, "other kind", masks) is not first


def test_a_seed_is_not_taken_for_a_slot() -> None:
    bank = MaskBank(10**6)
    seeded = {id(bank.seeded(seed, "kind", masks)) for seed in range(SLOTS)}
    unseeded = {id(bank.unseeded("kind", masks)) for _ in range(4 * SLOTS)}
    assert not seeded & unseeded


def test_unseeded_sets_are_replaced_after_their_uses() -> None:
    bank, number = MaskBank(10**9), count()
    names: dict[int, int] = {}

    def draw(_: int) -> RequestMasks:
        made = masks()
        names[id(made)] = next(number)
        kept.append(made)
        return made

    kept: list[RequestMasks] = []  # ids stay unique while the sets live
    uses = Counter(names[id(bank.unseeded("kind", draw))] for _ in range(20 * SLOTS))
    assert max(uses.values()) == USES
    assert len(uses) >= 20 * SLOTS / USES


def test_two_requests_rarely_share_their_masks() -> None:
    bank = MaskBank(10**9)
    kept = [bank.unseeded("kind", masks) for _ in range(100 * SLOTS)]
    same = sum(a is b for a, b in pairwise(kept))
    assert same / len(kept) < 2.0 / SLOTS


def test_requests_computed_together_never_share_their_masks() -> None:
    bank = MaskBank(10**9)
    kept: list[RequestMasks] = []  # ids stay unique while the sets live
    for requests in (1, 2, SLOTS, SLOTS + 6):
        for _ in range(3):
            together = bank.unseeded_apart("kind", masks, requests)
            assert len({id(one) for one in together}) == len(together) == requests
            kept += together
    assert len({id(one) for one in kept}) < len(kept), "sets are used again by others"


def test_the_least_recently_used_sets_go_when_the_bank_is_full() -> None:
    bank = MaskBank(5_000)  # five sets of 1000 bytes
    first = bank.seeded(0, "kind", masks)
    for seed in range(1, 5):
        bank.seeded(seed, "kind", masks)
    assert bank.seeded(0, "kind", masks) is first
    bank.seeded(5, "kind", masks)
    assert bank.seeded(0, "kind", masks) is first
    again = bank.seeded(1, "kind", masks)
    assert again is not first
    for seed in range(6, 20):
        bank.seeded(seed, "kind", masks)
    assert bank.seeded(0, "kind", masks) is not first


def test_sets_that_grow_in_use_do_not_take_more_than_the_limit() -> None:
    bank = MaskBank(5_000)
    sets = [bank.seeded(seed, "kind", masks) for seed in range(4)]
    sets[3][0].once("weights", lambda: torch.zeros(500))
    bank.trim(sets[3])
    assert bank.seeded(3, "kind", masks) is sets[3]
    assert bank.seeded(2, "kind", masks) is sets[2]
    assert bank.seeded(0, "kind", masks) is not sets[0]


def test_a_set_that_is_more_than_the_limit_is_not_kept() -> None:
    bank = MaskBank(5_000)
    first = bank.seeded(0, "kind", masks)
    first[0].once("weights", lambda: torch.zeros(5_000))
    bank.trim(first)
    assert bank.seeded(0, "kind", masks) is not first


def test_a_set_is_measured_after_every_use() -> None:
    """Also while it is used: blocks of passes gather weights one after the other."""
    bank = MaskBank(5_000)
    first = bank.seeded(0, "kind", masks)
    bank.trim(first)
    first[0].once("weights", lambda: torch.zeros(5_000))
    bank.trim(first)
    assert first.nbytes < 5_000
    assert bank.seeded(0, "kind", masks) is not first


def test_a_set_that_is_replaced_holds_nothing_that_could_be_made_again() -> None:
    bank = MaskBank(10**6, slots=1)
    first = bank.unseeded("kind", masks)
    marks = first.nbytes
    first[0].once("weights", lambda: torch.zeros(500))
    while bank.unseeded("kind", masks) is first:
        pass
    assert first.nbytes == marks
    first[0].once("weights", lambda: torch.zeros(500))
    bank.trim(first)
    assert first.nbytes == marks
