"""What a seed promises, with all that may differ between two requests drawn at once.

The same bytes: in whatever order the rows come and however they are split into requests, on however many
threads a model was loaded with, within whatever memory, and whatever else the process computes meanwhile.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cache

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dropserve_models.errors import MemoryLimitError
from dropserve_models.inference.workspace import Workspace
from dropserve_models.model import Model
from dropserve_models.prediction import DEFAULT_MEMORY_BYTES, Masks, MonteCarloOptions, Prediction
from support.engines import Array, blueprint_of, engine_of
from support.onnx_models import mlp
from support.promise import differing

ROWS = 70
NETWORKS = {
    "784-256-256-10": mlp([784, 256, 256, 10], [0.0, 0.2, 0.5], last="Softmax").onnx(),
    "9-3000-10": mlp([9, 3000, 10], [0.0, 0.5], last="Softmax").onnx(),
    "40-300-300-2": mlp([40, 300, 300, 2], [0.1, 0.3, 0.5]).onnx(),
    "10-100-100-1": mlp([10, 100, 100, 1], [0.0, 0.5, 0.3], last="Sigmoid").onnx(),
}
"""The first three are computed by thinned sub-networks, on as many threads as the model was loaded with."""


@dataclass(frozen=True)
class Situation:
    """How some rows are asked for.

    Attributes
    ----------
    parts : list of list of int
        The rows of each request.
    threads : int
        Of the model that answers them, and of ONNX Runtime.
    spare_bytes : int or None
        Memory beyond the least that will do; None: as much as there is by default.
    load : list of tuple
        What other threads ask for meanwhile: of which model, on how many threads, how many rows.
    """

    parts: list[list[int]]
    threads: int
    spare_bytes: int | None
    load: list[tuple[str, int, int, MonteCarloOptions]]


@st.composite
def requests(draw: st.DrawFn) -> MonteCarloOptions:
    detailed = draw(st.booleans())
    return MonteCarloOptions(
        passes=draw(st.sampled_from([1, 10, 37, 50, 101, 130])),
        seed=draw(st.sampled_from([0, 2**64 - 1])),
        quantiles=(0.1, 0.5) if detailed else (),
        return_samples=detailed,
        masks=draw(st.sampled_from(["stratified", "independent"])),
        mean_tolerance=None if detailed else draw(st.sampled_from([None, 0.2])),
    )


@st.composite
def situations(draw: st.DrawFn) -> Situation:
    rows = draw(st.lists(st.integers(0, ROWS - 1), min_size=1, max_size=ROWS))
    cuts = sorted(draw(st.sets(st.integers(1, ROWS), max_size=3)))
    parts = [rows[start:stop] for start, stop in zip([0, *cuts], [*cuts, ROWS], strict=True)]
    others = st.tuples(
        st.sampled_from(list(NETWORKS)),
        st.integers(1, 3),
        st.integers(1, ROWS),
        requests().flatmap(lambda one: st.sampled_from([one, replace(one, seed=None)])),
    )
    return Situation(
        parts=[part for part in parts if part],
        threads=draw(st.integers(1, 3)),
        spare_bytes=draw(st.sampled_from([0, 2**17, None])),
        load=draw(st.lists(others, max_size=3)),
    )


@cache
def features(name: str) -> Array:
    width = blueprint_of(NETWORKS[name]).info.feature_names
    return np.random.default_rng(0).normal(size=(ROWS, len(width))).astype(np.float32)


@cache
def least_memory(name: str) -> int:
    """What a few rows at a time need, whatever is drawn above."""
    engine = engine_of(NETWORKS[name])
    most = MonteCarloOptions(130, 0, (0.1, 0.5), return_samples=True)
    refused, least = 0, 2**28
    while least - refused > 2**12:
        middle = (refused + least) // 2
        try:
            Workspace(engine.program, engine.plan, middle).rows(1, most)
        except MemoryLimitError:
            refused = middle
        else:
            least = middle
    return least


@cache
def built(name: str, threads: int, spare_bytes: int | None) -> Model:
    """A model loaded by a process that may use so many threads; it keeps to them from then on."""
    memory = DEFAULT_MEMORY_BYTES if spare_bytes is None else least_memory(name) + spare_bytes
    model = Model(blueprint_of(NETWORKS[name], threads=threads), memory)
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        model.prepare_monte_carlo()
    finally:
        torch.set_num_threads(before)
    return model


@cache
def reference(name: str, options: MonteCarloOptions) -> Prediction:
    """All rows at once, on one thread, with nothing beside it."""
    return built(name, 1, None).run(features(name), options)


@contextmanager
def busy(load: Sequence[tuple[str, int, int, MonteCarloOptions]]) -> Iterator[None]:
    """A thread for each of `load`, asking again and again for the time of the context."""
    over, begun = threading.Event(), threading.Barrier(len(load) + 1)
    failures: list[Exception] = []

    def ask(name: str, threads: int, rows: int, options: MonteCarloOptions) -> None:
        model = built(name, threads, None)
        begun.wait(60)
        try:
            while not over.is_set():
                model.run(features(name)[:rows], options)
        except Exception as error:  # noqa: BLE001  # raised on below
            failures.append(error)

    workers = [threading.Thread(target=ask, args=one) for one in load]
    for worker in workers:
        worker.start()
    begun.wait(60)
    try:
        yield
    finally:
        over.set()
        for worker in workers:
            worker.join(60)
    assert not failures


@pytest.mark.parametrize("name", NETWORKS)
@settings(max_examples=15)
@given(options=requests(), situation=situations())
def test_a_seed_gives_the_same_bytes(name: str, options: MonteCarloOptions, situation: Situation) -> None:
    whole = reference(name, options)
    model = built(name, situation.threads, situation.spare_bytes)
    with busy(situation.load):
        for rows in situation.parts:
            assert not differing(model.run(features(name)[rows], options), whole, rows)


@pytest.mark.parametrize("masks", ["stratified", "independent"])
@pytest.mark.parametrize("passes", [1, 2, 10, 13, 101])
@pytest.mark.parametrize("name", NETWORKS)
def test_few_passes_at_a_time_give_the_same_bytes(name: str, passes: int, masks: Masks) -> None:
    """Threads would share a product of few rows by its sums: that of a single pass, or a last one alone."""
    options = MonteCarloOptions(passes, 0, masks=masks)
    for threads in (2, 3):
        found = built(name, threads, None).run(features(name), options)
        assert not differing(found, reference(name, options), range(ROWS))


def test_models_compute_on_the_threads_they_were_loaded_with(monkeypatch: pytest.MonkeyPatch) -> None:
    """Else the properties above would hold for nothing."""
    seen: dict[int, set[int]] = {}
    for threads in (1, 2, 3):
        model = built("784-256-256-10", threads, None)
        multiply, seen[threads] = torch.bmm, set()
        with monkeypatch.context() as patch:
            patch.setattr(
                torch,
                "bmm",
                lambda *args, _seen=seen[threads], _multiply=multiply, **options: (
                    _seen.add(torch.get_num_threads()),
                    _multiply(*args, **options),
                )[1],
            )
            model.run(features("784-256-256-10"), MonteCarloOptions(50, 0))
    assert seen == {1: {1}, 2: {2}, 3: {3}}
