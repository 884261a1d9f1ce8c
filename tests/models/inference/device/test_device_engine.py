"""The device engine answers what the engine does: on the CPU, where both can run."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import fields
from functools import cache

import numpy as np
import onnx
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dropserve_models.errors import MemoryLimitError
from dropserve_models.inference.device.engine import DeviceEngine
from dropserve_models.inference.device.runner import DeviceRunner
from dropserve_models.inference.engine import Engine
from dropserve_models.prediction import MonteCarloOptions, Prediction
from support.devices import FakeGraphs, device_engine_of
from support.engines import Array, engine_of
from support.onnx_models import constant, mlp, model, node

ROWS = 70
UNITS = 9


def branched(nodes: Sequence[onnx.NodeProto]) -> bytes:
    rng = np.random.default_rng(3)
    constants = [
        constant("half", 0.5), constant("third", 0.3), constant("scale", rng.normal(size=UNITS)),
        constant("w", rng.normal(size=(UNITS, UNITS)) / 3.0),
        constant("places", [17, 0, 3, 4, 5, 9, 10, 2, 2], np.int64),
        constant("v", rng.normal(size=(UNITS, UNITS)) / 3.0),
    ]  # fmt: skip
    made = {out for each in nodes for out in each.output}
    outputs = [out for out in ("prediction", "noise_variance") if out in made]
    return model(list(nodes), constants, UNITS, dict.fromkeys(outputs, UNITS))


D, E = node("Dropout", "features half", "d"), node("Dropout", "h third", "e")
NETWORKS = {
    "30-64-64-2": (mlp([30, 64, 64, 2], [0.0, 0.2, 0.5], last="Softmax").onnx(), 30),
    "10-100-100-1": (mlp([10, 100, 100, 1], [0.0, 0.5, 0.5]).onnx(), 10),
    "6-12-270-270-3": (mlp([6, 12, 270, 270, 3], [0.0, 0.1, 0.5, 0.3], last="Softmax").onnx(), 6),
    "9-20-1": (mlp([9, 20, 1], [0.0, 0.3], last="Sigmoid").onnx(), 9),
    "9-20-1, exact": (mlp([9, 20, 1], [0.0, 0.3]).onnx(), 9),
    "7-20-1, input dropout": (mlp([7, 20, 1], [0.1, 0.3], last="Sigmoid").onnx(), 7),
    "9-40-30-2, input dropout": (mlp([9, 40, 30, 2], [0.1, 0.2, 0.5]).onnx(), 9),
    "residual": (
        branched([
            node("Tanh", "features", "t"), node("Dropout", "t half", "d"), node("MatMul", "d w", "a"),
            node("Relu", "a", "h"), E, node("MatMul", "e v", "b"), node("Add", "b features", "s"),
            node("Sub", "s t", "m"), node("Mul", "scale m", "prediction"),
        ]),
        UNITS,
    ),
    "noise by another dropout": (
        branched([
            D, node("MatMul", "d w", "a"), node("Identity", "a", "prediction"), node("Tanh", "a", "h"), E,
            node("MatMul", "e v", "n"), node("Softplus", "n", "noise_variance"),
        ]),
        UNITS,
    ),
    "noise without dropout": (
        branched([D, node("MatMul", "d w", "prediction"), node("Softplus", "features", "noise_variance")]),
        UNITS,
    ),
    "logarithm, joined and split": (
        branched([
            D, node("MatMul", "d w", "a"), node("Concat", "a features", "c", axis=1),
            node("Gather", "c places", "h", axis=1), E, node("MatMul", "e v", "b"), node("Add", "b d", "r"),
            node("LogSoftmax", "r", "prediction", axis=1),
        ]),
        UNITS,
    ),
}  # fmt: skip
OPTIONS = {
    "integrated": MonteCarloOptions(100, 3),
    "a remainder": MonteCarloOptions(37, 4),
    "samples": MonteCarloOptions(37, 4, (0.1, 0.5), return_samples=True),
    "quantiles": MonteCarloOptions(23, 2**64 - 1, (0.0, 0.31, 1.0)),
    "independent": MonteCarloOptions(130, 5, masks="independent"),
    "one pass": MonteCarloOptions(1, 6),
    "three passes": MonteCarloOptions(3, 6),
    "many": MonteCarloOptions(317, 7),
}


@cache
def engine(name: str) -> Engine:
    return engine_of(NETWORKS[name][0])


@cache
def device_engine(name: str) -> DeviceEngine:
    return device_engine_of(NETWORKS[name][0])


@cache
def features(name: str) -> Array:
    return np.random.default_rng(0).normal(size=(ROWS, NETWORKS[name][1])).astype(np.float32)


def assert_close(ours: Prediction, theirs: Prediction) -> None:
    """Every field, to the accuracy of float32 of its largest value."""
    for field in fields(Prediction):
        found, expected = getattr(ours, field.name), getattr(theirs, field.name)
        if not isinstance(expected, np.ndarray):
            assert found == expected, field.name
            continue
        assert (found.dtype, found.shape) == (expected.dtype, expected.shape), field.name
        assert found.flags.c_contiguous, field.name
        largest = float(np.abs(expected).max())
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5 * largest + 2e-7, err_msg=field.name)


def same_bytes(ours: Prediction, theirs: Prediction, rows: slice | list[int] = slice(None)) -> bool:
    return all(
        getattr(ours, name).tobytes() == getattr(theirs, name)[rows].tobytes()
        for name in ("mean", "variance", "standard_error", "std_standard_error", "predictive_entropy")
        if getattr(theirs, name) is not None
    )


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


@pytest.mark.parametrize(
    "options",
    [OPTIONS["integrated"], MonteCarloOptions(2000, 1, (0.5,), return_samples=True)],
    ids=["moments", "samples"],
)
def test_a_request_that_does_not_fit_is_refused(options: MonteCarloOptions) -> None:
    name = "30-64-64-2"
    refusals: list[str] = []
    answered = 0
    for megabytes in (1, 2, 4, 8, 16, 32, 64, 128):
        ours = device_engine_of(NETWORKS[name][0], memory_bytes=megabytes * 2**20)
        try:
            answer = ours.run(features(name)[:2], options)
        except MemoryLimitError as error:
            refusals.append(str(error))
            assert not answered, "what fits, fits with more memory"
        else:
            answered += 1
            assert_close(answer, engine(name).run(features(name)[:2], options))
    assert answered
    assert refusals
    assert "a request may use 1,048,576" in refusals[0]


def test_a_device_without_room_refuses_the_request_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.\nOf the allocated ...")

    name, options = "30-64-64-2", OPTIONS["integrated"]
    ours = device_engine_of(NETWORKS[name][0])
    with monkeypatch.context() as patch:
        patch.setattr(DeviceRunner, "run", fail)
        with pytest.raises(MemoryLimitError, match=r"too little memory left .* Tried to allocate 2.00 GiB.$"):
            ours.run(features(name), options)
    assert same_bytes(ours.run(features(name), options), device_engine(name).run(features(name), options))


def test_masks_of_wide_layers_are_not_drawn_row_by_row() -> None:
    wide = mlp([4, 9000, 1], [0.0, 0.5], last="Sigmoid").onnx()
    assert device_engine_of(wide).together(1, MonteCarloOptions(50)) is None
    assert device_engine("10-100-100-1").together(1, MonteCarloOptions(50)) is not None


def test_samples_alone_beyond_the_limit_are_refused() -> None:
    with pytest.raises(MemoryLimitError, match="samples of 70 rows"):
        device_engine("30-64-64-2").run(
            features("30-64-64-2"), MonteCarloOptions(1_000_000, return_samples=True)
        )
