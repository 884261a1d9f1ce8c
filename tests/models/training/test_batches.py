from __future__ import annotations

import numpy as np
import pytest

from dropserve_models.training.batches import Batches, padded


def batches(counts: list[int], batch_size: int) -> Batches:
    rows = [np.arange(1000 * member, 1000 * member + count) for member, count in enumerate(counts)]
    return Batches(rows, batch_size, [np.random.SeedSequence(member) for member in range(len(counts))])


def epoch(source: Batches, members: int) -> list[list[list[int]]]:
    """Row numbers by step and member, without those that only fill a place."""
    steps = []
    for batch in source.epoch():
        rows = batch.rows.view(members, -1)
        kept = rows >= 0 if batch.weights is None else batch.weights > 0
        steps.append([rows[member][kept[member]].tolist() for member in range(members)])
    return steps


@pytest.mark.parametrize(
    ("counts", "batch_size", "sizes"),
    [
        ([65], 32, [[22], [22], [21]]),
        ([188, 187], 64, [[63, 63], [63, 62], [62, 62]]),
        ([10, 3], 5, [[5, 2], [5, 1]]),
        ([7, 1], 3, [[3, 1], [2, 0], [2, 0]]),
        ([4], 100, [[4]]),
    ],
)
def test_an_epoch_shows_each_member_its_rows_once_in_even_steps(
    counts: list[int], batch_size: int, sizes: list[list[int]]
) -> None:
    source = batches(counts, batch_size)
    orders = []
    for _ in range(2):
        steps = epoch(source, len(counts))
        assert [[len(rows) for rows in step] for step in steps] == sizes
        seen = [[row for step in steps for row in step[member]] for member in range(len(counts))]
        for member, count in enumerate(counts):
            assert sorted(seen[member]) == list(range(1000 * member, 1000 * member + count))
        orders.append(seen)
    if max(counts) > 10:
        assert orders[0] != orders[1]


def test_members_that_leave_change_nothing_for_the_others() -> None:
    whole, parted = batches([50, 49, 60], 16), batches([50, 49, 60], 16)
    epoch(whole, 3)
    epoch(parted, 3)
    parted.select([1])
    assert [[step[1]] for step in epoch(whole, 3)] == epoch(parted, 1)


def test_a_stream_goes_on_from_its_state() -> None:
    one, other = batches([50, 49], 16), batches([50, 49], 16)
    epoch(one, 2)
    other.restore(one.state())
    assert epoch(one, 2) == epoch(other, 2)


def test_rows_side_by_side_are_filled_up() -> None:
    index, weights = padded([np.array([3, 4, 5]), np.array([7])])
    assert index.tolist() == [[3, 4, 5], [7, 7, 7]]
    assert weights is not None
    assert weights.tolist() == [[1, 1, 1], [1, 0, 0]]
    assert padded([np.array([3, 4])])[1] is None
