"""What a seed promises: the same bytes, whatever else is computed with a row, and however."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from functools import cache

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dropserve_models.errors import MemoryLimitError
from dropserve_models.inference.blueprint import Blueprint
from dropserve_models.model import Model
from dropserve_models.prediction import MonteCarloOptions, Prediction
from support.engines import Array, blueprint_of
from support.onnx_models import constant, mlp, model, node
from support.promise import differing

ROWS = 70


def residual() -> bytes:
    """Dropouts whose output is not a linear layer's alone, and operations that are not exact."""
    rng = np.random.default_rng(3)
    nodes = [
        node("Dropout", "features half", "d1"),
        node("LayerNormalization", "d1 scale shift", "n1"),
        node("MatMul", "n1 square", "m1"),
        node("Gelu", "m1", "g1"),
        node("Add", "g1 d1", "r1"),
        node("Dropout", "r1 half", "d2"),
        node("Softplus", "d2", "s2"),
        node("MatMul", "s2 last", "m2"),
        node("Sigmoid", "m2", "prediction"),
    ]
    constants = [
        constant("half", 0.5), constant("scale", rng.normal(size=33)),
        constant("shift", rng.normal(size=33)), constant("square", rng.normal(size=(33, 33)) / 6.0),
        constant("last", rng.normal(size=(33, 10)) / 6.0),
    ]  # fmt: skip
    return model(nodes, constants, 33, 10, opset=20)


NETWORKS = {
    "30-64-64-2": (mlp([30, 64, 64, 2], [0.0, 0.2, 0.5], last="Softmax").onnx(), 30),
    "10-100-100-1": (mlp([10, 100, 100, 1], [0.0, 0.5, 0.5]).onnx(), 10),
    "784-256-256-10": (mlp([784, 256, 256, 10], [0.0, 0.2, 0.5], last="Softmax").onnx(), 784),
    "9-256-10": (mlp([9, 256, 10], [0.0, 0.5], last="Softmax").onnx(), 9),
    "9-3000-10": (mlp([9, 3000, 10], [0.0, 0.5], last="Softmax").onnx(), 9),
    "9-20-1": (mlp([9, 20, 1], [0.0, 0.3], last="Sigmoid").onnx(), 9),
    "7-20-1, input dropout": (mlp([7, 20, 1], [0.1, 0.3], last="Sigmoid").onnx(), 7),
    "33-33-10, residual": (residual(), 33),
    "9-40-30-2, input dropout": (mlp([9, 40, 30, 2], [0.1, 0.2, 0.5]).onnx(), 9),
}
OPTIONS = [
    MonteCarloOptions(100, 3),
    MonteCarloOptions(37, 4, (0.1, 0.5), return_samples=True),
    MonteCarloOptions(130, 5, (0.1, 0.5), return_samples=True, masks="independent"),
    MonteCarloOptions(100, 6, mean_tolerance=0.2),
]


@cache
def blueprint(name: str) -> Blueprint:
    return blueprint_of(NETWORKS[name][0])


@cache
def loaded(name: str) -> Model:
    return Model(blueprint(name))


@cache
def features(name: str) -> Array:
    return np.random.default_rng(0).normal(size=(ROWS, NETWORKS[name][1])).astype(np.float32)


@cache
def reference(name: str, options: MonteCarloOptions) -> Prediction:
    return loaded(name).run(features(name), options)


@st.composite
def requests(draw: st.DrawFn) -> MonteCarloOptions:
    detailed = draw(st.booleans())
    return MonteCarloOptions(
        passes=draw(st.sampled_from([1, 2, 7, 20, 37, 100, 130])),
        seed=draw(st.sampled_from([0, 7, 2**64 - 1])),
        quantiles=(0.1, 0.5) if detailed else (),
        return_samples=detailed,
        masks=draw(st.sampled_from(["stratified", "independent"])),
        mean_tolerance=None if detailed else draw(st.sampled_from([None, 0.2])),
    )


some_rows = st.lists(st.integers(0, ROWS - 1), min_size=1, max_size=ROWS)


@pytest.mark.parametrize("name", NETWORKS)
@settings(max_examples=25)
@given(options=requests(), rows=some_rows)
def test_same_bytes_for_any_rows_in_any_order(name: str, options: MonteCarloOptions, rows: list[int]) -> None:
    part = loaded(name).run(features(name)[rows], options)
    assert not differing(part, reference(name, options), rows)


@pytest.mark.parametrize("options", OPTIONS, ids=["integrated", "stratified", "independent", "adaptive"])
@pytest.mark.parametrize("name", NETWORKS)
def test_same_bytes_in_blocks_of_any_size(name: str, options: MonteCarloOptions) -> None:
    """Less memory, smaller blocks: a request is slower or refused, never answered otherwise."""

    def ask(memory_bytes: int, rows: int) -> Prediction:
        return Model(blueprint(name), memory_bytes).run(features(name)[:rows], options)

    refused, least = 0, 2**28
    while least - refused > 2**12:
        middle = (refused + least) // 2
        try:
            ask(middle, 1)
        except MemoryLimitError:
            refused = middle
        else:
            least = middle
    answer_bytes = sum(array.nbytes for array in (ask(2**28, ROWS).samples,) if array is not None)
    for memory_bytes in (
        max(least, answer_bytes),
        least + answer_bytes + 2**15,
        least + answer_bytes + 2**17,
    ):
        assert not differing(ask(memory_bytes, ROWS), reference(name, options), list(range(ROWS)))


@pytest.mark.parametrize("masks", ["stratified", "independent"])
@pytest.mark.parametrize("name", NETWORKS)
def test_same_bytes_when_asked_from_many_threads_at_once(name: str, masks: str) -> None:
    assert masks in ("stratified", "independent")
    options = [MonteCarloOptions(30, seed, (0.5,), masks=masks) for seed in range(4)]  # type: ignore[arg-type]
    expected = [reference(name, one) for one in options]
    jobs = [(number % 4, list(range(number % 60, ROWS))) for number in range(24)]

    def ask(job: tuple[int, list[int]]) -> list[str]:
        number, rows = job
        return differing(loaded(name).run(features(name)[rows], options[number]), expected[number], rows)

    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(ask, jobs)) == [[]] * len(jobs)


@pytest.mark.parametrize("name", NETWORKS)
@settings(max_examples=10)
@given(asked=st.lists(requests(), min_size=2, max_size=8))
def test_answers_do_not_depend_on_what_was_asked_before(name: str, asked: list[MonteCarloOptions]) -> None:
    """What is kept from one request to the next, masks say, is only ever taken for what it is."""
    used = Model(blueprint(name))
    for options in asked:
        fresh = Model(blueprint(name)).run(features(name)[:3], options)
        assert not differing(used.run(features(name)[:3], options), fresh, [0, 1, 2])


@pytest.mark.parametrize("name", NETWORKS)
def test_first_passes_of_independent_masks_are_a_shorter_run(name: str) -> None:
    long, short = (
        loaded(name).run(
            features(name), MonteCarloOptions(passes, 5, return_samples=True, masks="independent")
        )
        for passes in (130, 37)
    )
    assert long.samples is not None
    assert short.samples is not None
    np.testing.assert_allclose(long.samples[:37], short.samples, rtol=1e-4, atol=1e-5)


def test_seeds_differ() -> None:
    answers = [
        loaded("10-100-100-1").run(features("10-100-100-1"), MonteCarloOptions(20, seed)).mean
        for seed in (0, 1, 2**32, 2**63, 2**64 - 1)
    ]
    for number, answer in enumerate(answers):
        for other in answers[:number]:
            assert (answer != other).all()


@pytest.mark.parametrize("masks", ["stratified", "independent"])
def test_unseeded_answers_are_independent_of_each_other(masks: str) -> None:
    """Few requests share their masks, and the errors of those that don't are unbiased and uncorrelated."""
    assert masks in ("stratified", "independent")
    name, requests = "10-100-100-1", 800
    ask, x = loaded(name), features(name)[:3]
    truth = ask.run(x, MonteCarloOptions(10_000, 1)).mean[:, 0]
    answers = np.stack([
        ask.run(x, MonteCarloOptions(10, masks=masks)).mean[:, 0]  # type: ignore[arg-type]
        for _ in range(requests)
    ])  # fmt: skip
    same = (answers[:, None, 0] == answers[None, :, 0]).sum() - requests
    assert same / (requests * (requests - 1)) < 1 / 64
    _, first = np.unique(answers[:, 0], return_index=True)
    errors = (answers[np.sort(first)] - truth).astype(np.float64)
    spread, noise = errors.std(axis=0), 5.0 / np.sqrt(len(errors))
    assert len(errors) >= requests / 10
    assert (np.abs(errors.mean(axis=0)) < (noise + 0.1) * spread).all()
    for lag in (1, 2, 3):
        assert (np.abs((errors[lag:] * errors[:-lag]).mean(axis=0)) < noise * spread**2).all()
