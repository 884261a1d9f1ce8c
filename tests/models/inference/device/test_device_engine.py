"""The device engine answers what the engine does: on the CPU, where both can run."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dropserve_models.prediction import MonteCarloOptions
from support.device_cases import (
    NETWORKS,
    OPTIONS,
    ROWS,
    assert_close,
    device_engine,
    engine,
    features,
)
from support.devices import device_engine_of
from support.onnx_models import mlp


@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
@pytest.mark.parametrize("name", NETWORKS)
def test_the_same_seed_gives_the_same_answer(name: str, options: MonteCarloOptions) -> None:
    """The very masks, in other words; the arithmetic's last bits may differ."""
    x = features(name)
    assert_close(device_engine(name).run(x, options), engine(name).run(x, options))


@pytest.mark.parametrize("name", ["30-64-64-2", "10-100-100-1", "logarithm, joined and split"])
def test_rows_stop_where_the_engines_stop(name: str) -> None:
    options = MonteCarloOptions(400, 8, mean_tolerance=0.08)
    ours, theirs = (each.run(features(name), options) for each in (device_engine(name), engine(name)))
    assert ours.row_passes is not None
    assert theirs.row_passes is not None
    assert len(set(theirs.row_passes.tolist())) > 1, "rows must stop at different passes"
    same = ours.row_passes == theirs.row_passes  # a row may be at the very edge of its tolerance
    assert same.mean() > 0.9
    np.testing.assert_allclose(ours.mean[same], theirs.mean[same], rtol=1e-4, atol=1e-5)
    assert ours.standard_error is not None
    assert theirs.standard_error is not None
    np.testing.assert_allclose(ours.standard_error[same], theirs.standard_error[same], rtol=1e-3)


@pytest.mark.parametrize("name", NETWORKS)
def test_with_dropout_off_it_agrees(name: str) -> None:
    for ours, theirs in zip(
        device_engine(name).evaluate(features(name)), engine(name).evaluate(features(name)), strict=True
    ):
        np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
def test_parts_of_a_large_request_are_the_whole(options: MonteCarloOptions) -> None:
    """Several tiles, in several parts, the last of each padded."""
    name = "30-64-64-2"
    x = np.random.default_rng(1).normal(size=(700, 30)).astype(np.float32)
    small = device_engine_of(NETWORKS[name][0], memory_bytes=48 * 2**20)
    assert_close(small.run(x, options), engine(name).run(x, options))


@settings(max_examples=25)
@given(
    name=st.sampled_from(["30-64-64-2", "10-100-100-1", "residual"]),
    options=st.sampled_from([OPTIONS["integrated"], MonteCarloOptions(100, 8, mean_tolerance=0.2)]),
    start=st.integers(0, ROWS - 1),
    count=st.integers(1, ROWS),
)
def test_a_seeded_row_does_not_depend_on_the_others(
    name: str, options: MonteCarloOptions, start: int, count: int
) -> None:
    """To a few units in the last place here: only a device's own test can tell its library's bytes."""
    whole = device_engine(name).run(features(name), options)
    part = device_engine(name).run(features(name)[start : start + count], options)
    np.testing.assert_allclose(part.mean, whole.mean[start : start + count], rtol=2e-6, atol=1e-7)


def test_requests_without_a_seed_have_masks_of_their_own() -> None:
    name = "10-100-100-1"
    answers = [device_engine(name).run(features(name)[:2], MonteCarloOptions(10)).mean for _ in range(20)]
    assert len({answer.tobytes() for answer in answers}) == 20


@pytest.mark.parametrize("name", ["30-64-64-2", "10-100-100-1", "residual", "logarithm, joined and split"])
def test_requests_computed_together_share_no_masks(name: str) -> None:
    """Each is answered as if it were alone: as far off the truth, but not in the same way."""
    ours, passes = device_engine(name), 20
    x = features(name)[:2]
    options = MonteCarloOptions(passes)
    assert ours.together(2, options) is not None
    requests = [x] * 40  # eight at a time fill a tile
    answers = ours.run_together([*requests, features(name)[:3], features(name)[:16]], options)
    assert [len(answer.mean) for answer in answers] == [2] * 40 + [3, 16]
    means = np.stack([answer.mean for answer in answers[:40]]).astype(np.float64)
    truth = engine(name).run(x, MonteCarloOptions(20_000, 1))
    assert truth.variance is not None
    std = np.sqrt(truth.variance)
    errors = (means - truth.mean) / np.maximum(std, 1e-12)
    spread = np.sqrt((errors**2).mean(axis=0))
    assert (spread < 1.5 / np.sqrt(passes)).all(), "as accurate as passes of their own"
    assert len(np.unique(means[:, 0, 0])) == 40
    assert (np.abs(errors.mean(axis=0)) < 5 * spread / np.sqrt(40)).all(), "errors average out"
    # The two rows of a request do share its masks: where they are the same row, so are the answers.
    twice = ours.run_together([x[[0, 0]], x[[1, 1]]], options)
    for answer in twice:
        np.testing.assert_allclose(answer.mean[0], answer.mean[1], rtol=1e-5)


@pytest.mark.parametrize(
    ("rows", "options"),
    [
        (1, MonteCarloOptions(50, 1)),
        (1, MonteCarloOptions(50, mean_tolerance=0.1)),
        (16, MonteCarloOptions(50)),
    ],
)
def test_what_is_never_computed_together(rows: int, options: MonteCarloOptions) -> None:
    assert device_engine("30-64-64-2").together(rows, options) is None


def test_masks_of_wide_layers_are_not_drawn_row_by_row() -> None:
    wide = mlp([4, 9000, 1], [0.0, 0.5], last="Sigmoid").onnx()
    assert device_engine_of(wide).together(1, MonteCarloOptions(50)) is None
    assert device_engine("10-100-100-1").together(1, MonteCarloOptions(50)) is not None
