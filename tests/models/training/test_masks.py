from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from dropserve_models.training.masks import MaskStream


def stream(rates: tuple[float, ...], widths: tuple[int, ...], seed: int = 0, members: int = 1) -> MaskStream:
    seeds = [np.random.SeedSequence((seed, member)) for member in range(members)]
    return MaskStream([rates] * members, widths, seeds)


@pytest.mark.parametrize("rate", [0.01, 0.2, 0.5, 0.9])
def test_units_are_dropped_at_their_rate_and_the_others_scaled_up(rate: float) -> None:
    (mask,) = stream((rate,), (100,), members=2).draw(5000)
    assert mask is not None
    assert mask.shape == (2, 5000, 100)
    scale = np.float32(1 / (1 - rate))
    assert set(mask.flatten().tolist()) == {0.0, float(scale)}
    dropped = (mask == 0).double()
    error = (rate * (1 - rate) / mask.numel()) ** 0.5 + 2**-17
    assert abs(dropped.mean().item() - rate) < 4 * error
    # Neighbours come from one 64-bit draw: they must not move together.
    correlation = torch.corrcoef(dropped.flatten().view(-1, 2).T)[0, 1].item()
    assert abs(correlation) < 4 / (mask.numel() / 2) ** 0.5


def test_layers_members_and_draws_are_different() -> None:
    source = stream((0.5, 0.0, 0.5), (40, 7, 40), members=2)
    first, none, second = source.draw(30)
    assert none is None
    assert first is not None
    assert second is not None
    again = source.draw(30)[0]
    assert again is not None
    for other in (second, again, first.flip(0)):
        assert not torch.equal(first, other)


def test_a_seed_gives_the_same_masks() -> None:
    one, same, other = (stream((0.5,), (40,), seed).draw(9)[0] for seed in (3, 3, 4))
    assert one is not None
    assert same is not None
    assert other is not None
    assert torch.equal(one, same)
    assert not torch.equal(one, other)


def test_an_odd_number_of_units() -> None:
    (mask,) = stream((0.5,), (3,)).draw(1)
    assert mask is not None
    assert mask.shape == (1, 1, 3)


def test_without_dropout_nothing_is_drawn() -> None:
    assert stream((0.0, 0.0), (3, 4)).draw(5) == [None, None]


def test_each_member_has_its_own_rate() -> None:
    seeds = [np.random.SeedSequence(member) for member in range(3)]
    (mask,) = MaskStream([(0.5,), (0.0,), (0.1,)], (50,), seeds).draw(400)
    assert mask is not None
    assert torch.equal(mask[1], torch.ones(400, 50))
    assert (mask[0] == 0).float().mean().item() == pytest.approx(0.5, abs=0.02)
    assert (mask[2] == 0).float().mean().item() == pytest.approx(0.1, abs=0.01)


def drawn(source: MaskStream, times: int, rows: int = 700) -> Tensor:
    masks = [source.draw(rows)[0] for _ in range(times)]
    return torch.stack([mask for mask in masks if mask is not None])


def test_members_that_leave_change_nothing_for_the_others() -> None:
    whole, parted = (stream((0.5,), (9,), members=3) for _ in range(2))
    drawn(whole, 3)
    drawn(parted, 3)
    parted.select([2, 0])
    assert torch.equal(drawn(whole, 5)[:, [2, 0]], drawn(parted, 5))


@pytest.mark.parametrize("before", [0, 1, 4])
def test_a_stream_goes_on_from_its_state(before: int) -> None:
    one, other = (stream((0.5,), (9,), members=2) for _ in range(2))
    if before:
        drawn(one, before)
    other.restore(one.state())
    assert torch.equal(drawn(one, 5), drawn(other, 5))
