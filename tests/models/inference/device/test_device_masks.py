"""The device's random numbers and masks are numpy's, bit for bit."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dropserve_models.inference.blocks import blocks, draw_masks
from dropserve_models.inference.device.masks import MaskSampler
from dropserve_models.inference.device.philox import Philox, halves, signed
from dropserve_models.inference.masks import dropped, strata
from dropserve_models.inference.program import Site
from dropserve_models.prediction import Masks
from support.devices import CPU

words = st.integers(0, 2**64 - 1)


@given(seed=words, stream=words, counter=st.integers(0, 2**62))
def test_words_are_those_of_numpy(seed: int, stream: int, counter: int) -> None:
    count = 5
    ours = Philox(CPU)(
        counter + 1 + torch.arange(count),
        torch.tensor(signed(seed)).expand(count),
        torch.tensor(signed(stream)).expand(count),
    )
    theirs = np.random.Philox(key=seed | (stream << 64), counter=counter).random_raw(4 * count)
    np.testing.assert_array_equal(ours.flatten().numpy().view(np.uint64), theirs)
    np.testing.assert_array_equal(halves(ours).flatten().numpy(), theirs.view(np.uint32))


@given(word=words)
def test_signed_words_have_the_same_bits(word: int) -> None:
    assert np.int64(signed(word)).view(np.uint64) == word


@settings(max_examples=60)
@given(
    seeds=st.lists(words, min_size=1, max_size=3),
    sites=st.lists(
        st.tuples(st.sampled_from([0.01, 0.1, 0.3, 1 / 3, 0.5, 0.8, 0.99]), st.integers(1, 40)),
        min_size=1, max_size=3,
    ),
    passes=st.sampled_from([1, 2, 3, 5, 19, 20, 37, 100, 137]),
    limit=st.sampled_from([10, 40, 100]),
    masks=st.sampled_from(["stratified", "independent"]),
    draws=st.sampled_from([1, 3, 8]),
)  # fmt: skip
def test_masks_are_those_of_the_host(
    seeds: list[int], sites: list[tuple[float, int]], passes: int, limit: int, masks: Masks, draws: int
) -> None:
    """For every block of a request, the tail's drawn several times a pass."""
    tail = len(sites) - 1
    everywhere = [Site(*site) for site in sites]
    for block in blocks(strata(passes, masks), limit):
        sampler = MaskSampler(everywhere, block.groups, tail, draws, CPU)
        start = [[signed(seed) for seed in seeds], [block.stratum] * len(seeds), [block.first] * len(seeds)]
        found = sampler(torch.tensor(start))
        for place, seed in enumerate(seeds):
            (expected,) = draw_masks(everywhere, seed, [block], tail, draws)
            for number, values in enumerate(found):
                np.testing.assert_array_equal(values[:, :, place], expected.scaled(number)[:, :, 0])


@pytest.mark.parametrize("first", [2**31 // 8, 2**32 // 8 + 5, 10**9])
def test_passes_far_out_are_the_hosts_too(first: int) -> None:
    """Counters of more than 32 bits."""
    sampler = MaskSampler([Site(0.3, 20)], ((1, 4),), 0, 1, CPU)
    marks = dropped(7, 0, 20, 0.3, ((1, 4),), first, first)
    np.testing.assert_array_equal(
        sampler(torch.tensor([[7], [first], [first]]))[0][:, :, 0].numpy() == 0, marks.T
    )
