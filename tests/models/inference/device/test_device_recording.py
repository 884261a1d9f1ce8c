"""Blocks that were recorded, and replayed, answer what those did that were not."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest

from dropserve_models.prediction import MonteCarloOptions
from support.device_cases import (
    NETWORKS,
    OPTIONS,
    ROWS,
    assert_close,
    device_engine,
    engine,
    features,
    same_bytes,
)
from support.devices import FakeGraphs, device_engine_of


@pytest.mark.parametrize(
    "options", [OPTIONS["samples"], OPTIONS["a remainder"]], ids=["samples", "integrated"]
)
@pytest.mark.parametrize("name", ["30-64-64-2", "10-100-100-1", "6-12-270-270-3"])
def test_recorded_blocks_compute_what_the_first_ones_did(name: str, options: MonteCarloOptions) -> None:
    """A recording is replayed with the masks and the rows of each request, never with an earlier one's."""
    graphs = FakeGraphs()
    ours, x = device_engine_of(NETWORKS[name][0], record=graphs), features(name)
    eager = device_engine(name)
    for seed in (1, 2, 1):
        for rows in (slice(0, 5), slice(0, ROWS), slice(30, 40)):
            asked = MonteCarloOptions(
                options.passes, seed, options.quantiles, options.return_samples, options.masks
            )
            assert same_bytes(ours.run(x[rows], asked), eager.run(x[rows], asked)), f"{seed}, {rows}"
    assert graphs.recorded >= 2
    assert graphs.replayed > graphs.recorded


def test_a_recorded_block_draws_new_masks_each_time() -> None:
    graphs = FakeGraphs()
    ours, x = device_engine_of(NETWORKS["10-100-100-1"][0], record=graphs), features("10-100-100-1")[:1]
    means = {ours.run(x, MonteCarloOptions(20)).mean.tobytes() for _ in range(10)}
    assert len(means) == 10
    assert graphs.replayed >= 16


def test_where_recording_fails_the_answer_is_the_same(caplog: pytest.LogCaptureFixture) -> None:
    def fail(_: object) -> None:
        raise RuntimeError("CUDA error: operation not permitted when stream is capturing\nmore of it")

    name, options = "30-64-64-2", OPTIONS["integrated"]
    ours = device_engine_of(NETWORKS[name][0], record=fail)  # type: ignore[arg-type]  # never returns
    for _ in range(3):
        assert same_bytes(ours.run(features(name), options), device_engine(name).run(features(name), options))
    assert [record.message for record in caplog.records] == [
        "Monte Carlo runs without CUDA graphs: CUDA error: operation not permitted when stream is capturing"
    ]


def test_more_shapes_than_are_kept() -> None:
    name = "10-100-100-1"
    ours = device_engine_of(NETWORKS[name][0], record=FakeGraphs())
    for passes in [*range(20, 40), *range(20, 40)]:
        options = MonteCarloOptions(passes, 5)
        assert_close(ours.run(features(name)[:3], options), engine(name).run(features(name)[:3], options))


def test_asked_from_many_threads_at_once() -> None:
    name = "30-64-64-2"
    ours = device_engine_of(NETWORKS[name][0], record=FakeGraphs())
    options = [MonteCarloOptions(30, seed) for seed in range(4)]
    expected = [device_engine(name).run(features(name), one) for one in options]

    def ask(number: int) -> bool:
        return same_bytes(ours.run(features(name), options[number % 4]), expected[number % 4])

    with ThreadPoolExecutor(4) as pool:
        assert all(pool.map(ask, range(24)))
