"""Which way a request is computed, and in which blocks: by the constants, and by what was measured."""

from __future__ import annotations

from dataclasses import fields, replace

import numpy as np
import pytest

from dropserve_models.inference import mask_source
from dropserve_models.inference.costs import (
    ALWAYS_THINNED,
    AROUND,
    CLEARLY,
    CONSTANTS,
    NEVER_THINNED,
    Costs,
    Way,
)
from dropserve_models.inference.engine import Engine
from dropserve_models.inference.workspace import GROUP, ROW_MULTIPLE
from dropserve_models.prediction import MonteCarloOptions, Prediction
from support.engines import Array, engine_of
from support.onnx_models import constant, mlp, model, node

NETWORK = mlp([30, 64, 64, 2], [0.0, 0.2, 0.5], last="Softmax").onnx()
WIDE = mlp([30, 300, 300, 5], [0.0, 0.2, 0.5], last="Softmax").onnx()
REGRESSION = mlp([10, 100, 100, 1], [0.0, 0.5, 0.5]).onnx()
NETWORKS = {"softmax": NETWORK, "wide": WIDE, "regression": REGRESSION}
OPTIONS = MonteCarloOptions(60)
DEARER = Way(0.0, 0.0, 1e-6, 0.0)
CHEAPER = Way(0.0, 0.0, 1e-6 * CLEARLY * 0.99, 0.0)


def test_what_a_way_takes() -> None:
    assert Way(1.0, 10.0, 100.0, 1000.0).seconds(rows=3, passes=2, draws=4) == 1 + 2 * (10 + 3 * (100 + 4000))


def test_the_constants_draw_one_border() -> None:
    work = engine_of(NETWORK).work
    assert work.weights == 64 * 64 + 64 * 2
    sampled = replace(OPTIONS, return_samples=True)
    assert work.draws(sampled) == 0, "a single draw is sampled like all before"
    assert work.border(sampled) == CONSTANTS.thinned_rows + CONSTANTS.thinned_work / work.weights
    few = MonteCarloOptions(10)
    assert work.draws(few) == 8
    assert work.draws(OPTIONS) == 2
    drawn = work.weights + 8 * 64 * CONSTANTS.draw_work
    assert work.border(few) == CONSTANTS.thinned_rows + CONSTANTS.thinned_work / drawn
    border = int(work.border(OPTIONS))
    assert [work.thins(rows, OPTIONS, CONSTANTS) for rows in (1, border, border + 1)] == [False, False, True]
    assert work.thins(1, OPTIONS, ALWAYS_THINNED)
    assert not work.thins(10**9, OPTIONS, NEVER_THINNED)


def test_what_can_not_be_thinned_never_is() -> None:
    nodes = [
        node("Dropout", "features half", "d"),
        node("Tanh", "d", "t"),
        node("MatMul", "t w", "prediction"),
    ]
    constants = [constant("half", 0.5), constant("w", np.ones((6, 2)))]
    work = engine_of(model(nodes, constants, 6, 2)).work
    assert work.weights == 0
    assert not work.thins(10**9, OPTIONS, ALWAYS_THINNED)


@pytest.mark.parametrize(("small", "thinned", "thins"), [(DEARER, CHEAPER, True), (CHEAPER, DEARER, False)])
def test_what_was_measured_decides_around_the_border(small: Way, thinned: Way, thins: bool) -> None:
    work, costs = engine_of(NETWORK).work, Costs(small=small, thinned=thinned)
    border = work.border(OPTIONS)
    for rows in (int(border / AROUND) + 1, int(border), int(border) + 1, int(border * AROUND)):
        assert work.thins(rows, OPTIONS, costs) is thins
    assert not work.thins(int(border / AROUND), OPTIONS, costs)
    assert work.thins(int(border * AROUND) + 1, OPTIONS, costs)


@pytest.mark.parametrize("swapped", [False, True])
def test_what_is_not_clearly_better_changes_nothing(swapped: bool) -> None:
    work, alike = engine_of(NETWORK).work, Way(0.0, 0.0, 1e-6 * CLEARLY * 1.01, 0.0)
    small, thinned = (alike, DEARER) if swapped else (DEARER, alike)
    costs = Costs(small=small, thinned=thinned)
    for rows in range(1, 1000, 7):
        assert work.thins(rows, OPTIONS, costs) is work.thins(rows, OPTIONS, CONSTANTS)


def test_rows_that_stop_early_are_not_asked_for_of_small_requests() -> None:
    work, costs = engine_of(NETWORK).work, Costs(small=DEARER, thinned=CHEAPER)
    adaptive = replace(OPTIONS, mean_tolerance=0.1)
    for rows in range(1, 1000, 7):
        assert work.thins(rows, adaptive, costs) is work.thins(rows, adaptive, CONSTANTS)


def features(engine: Engine, rows: int) -> Array:
    (width,) = {engine.program.widths[name] for name in engine.program.boundary}
    columns = 10 if width == 100 else 30
    return np.random.default_rng(3).normal(size=(rows, columns)).astype(np.float32)


def differing(one: Prediction, other: Prediction) -> list[str]:
    pairs = [(field.name, getattr(one, field.name), getattr(other, field.name)) for field in fields(one)]
    return [
        name
        for name, ours, theirs in pairs
        if (ours.tobytes() != theirs.tobytes() if isinstance(ours, np.ndarray) else ours != theirs)
    ]


@pytest.mark.parametrize("rows", [1, 17, 200])
@pytest.mark.parametrize(
    "options",
    [
        MonteCarloOptions(100, 1),
        MonteCarloOptions(37, 2, (0.1,), return_samples=True),
        MonteCarloOptions(130, 3, masks="independent"),
        MonteCarloOptions(100, 4, mean_tolerance=0.2),
    ],
    ids=str,
)
@pytest.mark.parametrize("name", NETWORKS)
def test_a_seed_has_the_same_bytes_whatever_was_measured(
    name: str, options: MonteCarloOptions, rows: int
) -> None:
    """It can't depend on how busy the machine was when a model was prepared."""
    answers = []
    for costs in (
        CONSTANTS,
        replace(ALWAYS_THINNED, cache_bytes=2**16),
        replace(NEVER_THINNED, cache_bytes=2**20),
        Costs(small=DEARER, thinned=CHEAPER),
        Costs(small=CHEAPER, thinned=DEARER),
    ):
        engine = engine_of(NETWORKS[name])
        engine.costs = costs
        answers.append(engine.run(features(engine, rows), options))
    for answer in answers[1:]:
        assert not differing(answer, answers[0])


@pytest.mark.parametrize("name", NETWORKS)
def test_without_a_seed_what_was_measured_decides(name: str) -> None:
    engine = engine_of(NETWORKS[name])
    rows = features(engine, int(engine.work.border(OPTIONS)) + 1)
    engine.prepare_small(rows[:2])
    for costs, together in (
        (CONSTANTS, False),
        (Costs(small=CHEAPER, thinned=DEARER), True),
        (Costs(small=DEARER, thinned=CHEAPER), False),
        (NEVER_THINNED, True),
        (ALWAYS_THINNED, False),
    ):
        engine.costs = costs
        assert (engine.together(len(rows), OPTIONS) is not None) is together


@pytest.mark.parametrize("passes", [60, 100, 230])
@pytest.mark.parametrize("name", NETWORKS)
def test_blocks_of_all_sizes_give_the_same_answer(
    name: str, passes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """To within float32's rounding, where the masks are the same."""
    monkeypatch.setattr(mask_source, "fresh_seed", lambda: 5)
    answers = []
    for cache_bytes in (2**14, 2**20, 2**22, CONSTANTS.cache_bytes):
        engine = engine_of(NETWORKS[name])
        engine.costs = replace(ALWAYS_THINNED, cache_bytes=cache_bytes)
        answers.append(engine.run(features(engine, 90), MonteCarloOptions(passes)))
    for answer in answers[:-1]:
        for field in ("mean", "std", "standard_error"):
            np.testing.assert_allclose(
                getattr(answer, field), getattr(answers[-1], field), rtol=1e-4, atol=1e-6, err_msg=field
            )


@pytest.mark.parametrize("name", NETWORKS)
def test_what_is_computed_at_once_fits_the_cache(name: str) -> None:
    """All of it counts against a request's memory, see `Workspace.rows`, so it must be true."""
    workspace = engine_of(NETWORKS[name]).workspace
    for passes in (10, 40, 100, 1000):
        options = MonteCarloOptions(passes)
        of_a_pass = workspace._per_pass(options, thinned=True)
        for part in (1, 2, 8, 64):
            costs = replace(CONSTANTS, cache_bytes=CONSTANTS.cache_bytes // part)
            for rows in (1, 64, 256, 1000, 20_000):
                group = workspace.group(rows, options, costs)
                chunks = list(workspace.chunks(rows, options, costs, group))
                largest = max(stop - start for start, stop in chunks)
                at_once = min(2 * group - 1, workspace.pass_block, passes)
                assert largest <= ROW_MULTIPLE or largest * at_once * of_a_pass <= costs.cache_bytes
                assert group >= GROUP
                assert [start for start, _ in chunks[1:]] == [stop for _, stop in chunks[:-1]]
                assert workspace.group(rows, replace(options, seed=1), costs) == GROUP


def test_few_rows_are_thinned_in_larger_groups() -> None:
    workspace = engine_of(WIDE).workspace
    options = MonteCarloOptions(100)
    groups = [workspace.group(rows, options, CONSTANTS) for rows in (2000, 256, 64, 16)]
    assert groups == sorted(groups)
    assert groups[0] == GROUP
    assert groups[-1] >= workspace.pass_block, "all passes of a block"
