"""What is measured of a model, with times made up: nothing here depends on how fast this machine is."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from dropserve_models import load
from dropserve_models.errors import MemoryLimitError
from dropserve_models.inference import measuring
from dropserve_models.inference.costs import ALWAYS_THINNED, CLEARLY, CONSTANTS, NEVER_THINNED, Costs, Way
from dropserve_models.inference.engine import Engine
from dropserve_models.inference.measuring import FEW, LIMIT_SECONDS, MANY, RUNS, SIZED, clearly_best, measure
from dropserve_models.prediction import MonteCarloOptions, Prediction
from support.engines import Array, engine_of, model_of
from support.onnx_models import mlp, publish

NETWORK = mlp([30, 64, 64, 2], [0.0, 0.2, 0.5], last="Softmax").onnx()
REGRESSION = mlp([10, 100, 100, 1], [0.0, 0.5, 0.5]).onnx()
WAYS_RUNS = 2 * 4 * RUNS
SMALL, THINNED = Way(3e-4, 0.0, 3e-7, 1e-7), Way(1e-3, 3e-6, 9e-8, 1e-8)

Takes = Callable[[Costs, int, MonteCarloOptions], float]


class Stopwatch:
    """A clock that only computing moves on, by as much as `takes` says."""

    def __init__(self, data: bytes, takes: Takes) -> None:
        self.engine: Engine = engine_of(data)
        width = 30 if data is NETWORK else 10
        self.probe: Array = np.random.default_rng(0).normal(size=(32, width)).astype(np.float32)
        self.engine.prepare_small(self.probe)
        self.asked: list[tuple[int, MonteCarloOptions]] = []
        self.now = 100.0
        self._takes = takes
        self.engine.run = self._run  # type: ignore[method-assign]

    def _run(self, features: Array, options: MonteCarloOptions) -> Prediction:
        assert features.shape[1] == self.probe.shape[1]
        self.asked.append((len(features), options))
        self.now += self._takes(self.engine.costs, len(features), options)
        return Prediction(features)

    def measure(self) -> Costs:
        return measure(self.engine, self.probe, lambda: self.now)


def by_ways(engine_draws: Callable[[MonteCarloOptions], int], small: Way, thinned: Way) -> Takes:
    def takes(costs: Costs, rows: int, options: MonteCarloOptions) -> float:
        way = thinned if costs.thinned_work == ALWAYS_THINNED.thinned_work else small
        return way.seconds(rows, options.passes, engine_draws(options))

    return takes


def timed(data: bytes, small: Way, thinned: Way) -> Stopwatch:
    draws = engine_of(data).work.draws
    return Stopwatch(data, by_ways(draws, small, thinned))


def test_the_numbers_of_both_ways_are_found() -> None:
    stopwatch = timed(NETWORK, SMALL, THINNED)
    found = stopwatch.measure()
    for ours, theirs in ((found.small, SMALL), (found.thinned, THINNED)):
        assert ours is not None
        assert ours.call == pytest.approx(theirs.call, rel=1e-6)
        assert ours.a_pass == pytest.approx(theirs.a_pass, rel=1e-6, abs=1e-12)
        assert ours.a_row == pytest.approx(theirs.a_row, rel=1e-6)
        assert ours.a_draw == pytest.approx(theirs.a_draw, rel=1e-6)
    assert found.cache_bytes == CONSTANTS.cache_bytes
    assert len(stopwatch.asked) == WAYS_RUNS + 1 + len(measuring.SIZES)
    assert {options for _, options in stopwatch.asked} == {FEW, MANY, SIZED}


def test_where_nothing_is_drawn_of_the_last_masks_passes_tell() -> None:
    found = timed(REGRESSION, replace(SMALL, a_draw=0.0), replace(THINNED, a_draw=0.0)).measure()
    assert found.small is not None
    assert found.small.a_draw == 0.0
    assert found.small.a_row == pytest.approx(SMALL.a_row, rel=1e-6)


def test_ways_that_take_as_long_leave_everything_as_it_is() -> None:
    stopwatch = timed(NETWORK, SMALL, SMALL)
    found, work = stopwatch.measure(), stopwatch.engine.work
    assert found.cache_bytes == CONSTANTS.cache_bytes
    for passes in (1, 10, 22, 50, 100, 1000):
        options = MonteCarloOptions(passes)
        for rows in range(1, 2000, 13):
            assert work.thins(rows, options, found) is work.thins(rows, options, CONSTANTS)


@pytest.mark.parametrize("thinned", [True, False])
def test_the_way_that_is_better_around_the_border_is_chosen(thinned: bool) -> None:
    ways = (SMALL, Way(0.0, 0.0, SMALL.a_row / 2, 0.0)) if thinned else (Way(0.0, 0.0, 1e-9, 0.0), THINNED)
    stopwatch = timed(NETWORK, *ways)
    found, work = stopwatch.measure(), stopwatch.engine.work
    for options in (FEW, MANY):
        for rows in (int(work.border(options) / 2), int(work.border(options) * 2)):
            assert work.thins(rows, options, found) is thinned


def test_times_that_make_no_sense_are_no_way_of_their_own() -> None:
    """The fewer rows take longer, for all that a clock may say: then nothing costs less than nothing."""
    found = Stopwatch(NETWORK, lambda costs, rows, options: 1e-3 / rows / options.passes).measure()
    for way in (found.small, found.thinned):
        assert way is not None
        assert min(way.call, way.a_pass, way.a_row, way.a_draw) >= 0.0


@pytest.mark.parametrize(("share", "better"), [(CLEARLY * 0.99, True), (CLEARLY * 1.01, False)])
def test_less_of_the_cache_is_used_where_that_is_clearly_better(share: float, better: bool) -> None:
    half = CONSTANTS.cache_bytes // 2
    stopwatch = Stopwatch(NETWORK, lambda costs, *_: 1e-3 * (share if costs.cache_bytes == half else 1.0))
    assert stopwatch.measure().cache_bytes == (half if better else CONSTANTS.cache_bytes)
    most = stopwatch.engine.workspace.most_rows(SIZED, CONSTANTS, 20)
    assert (most, SIZED) in stopwatch.asked


def test_the_engine_is_left_as_it_was() -> None:
    stopwatch = timed(NETWORK, SMALL, THINNED)
    engine = stopwatch.engine
    assert engine.small is not None
    bank = engine.small.bank
    stopwatch.measure()
    assert engine.costs is CONSTANTS
    assert engine.small.bank is bank

    def refuse(features: Array, options: MonteCarloOptions) -> Prediction:
        raise MemoryLimitError("too little")

    engine.run = refuse  # type: ignore[method-assign]
    assert stopwatch.measure() == CONSTANTS
    assert engine.costs is CONSTANTS
    assert engine.small.bank is bank


@pytest.mark.parametrize("run", [1, 7, WAYS_RUNS])
def test_a_busy_processor_is_not_measured(run: int, caplog: pytest.LogCaptureFixture) -> None:
    """One run that takes long ends it; the constants stay."""
    taken = iter([1e-3] * (run - 1) + [2 * LIMIT_SECONDS])
    stopwatch = Stopwatch(NETWORK, lambda *_: next(taken))
    with caplog.at_level(logging.DEBUG, "dropserve_models"):
        assert stopwatch.measure() == CONSTANTS
    assert len(stopwatch.asked) == run
    assert "the processor has other work" in caplog.text


def test_what_was_found_before_counts_where_time_runs_out_later() -> None:
    taken = iter([1e-3] * WAYS_RUNS + [2 * LIMIT_SECONDS])
    found = Stopwatch(NETWORK, lambda *_: next(taken)).measure()
    assert found.small is not None
    assert found.thinned is not None


@pytest.mark.parametrize(
    "data",
    [
        mlp([10, 20, 1], [0.0, 0.3]).onnx(),  # exact, with nothing to sample
        mlp([10, 8, 8, 2], [0.0, 0.2, 0.5], last="Softmax").onnx(),  # so small that few requests are thinned
        mlp([10, 500, 500, 2], [0.0, 0.2, 0.5], last="Softmax").onnx(),  # so large that it would take long
    ],
    ids=["exact", "small", "large"],
)
def test_where_there_is_little_to_choose_nothing_is_computed(data: bytes) -> None:
    stopwatch = Stopwatch(data, lambda *_: 1.0)
    assert stopwatch.measure() is CONSTANTS
    assert not stopwatch.asked


def test_the_log_says_what_was_chosen_and_what_it_took(caplog: pytest.LogCaptureFixture) -> None:
    stopwatch = timed(NETWORK, SMALL, THINNED)
    with caplog.at_level(logging.DEBUG, "dropserve_models"):
        stopwatch.measure()
    (record,) = caplog.records
    assert record.levelname == "DEBUG"
    border = [stopwatch.engine.work.border(asked) for asked in (FEW, MANY)]
    chosen = f"(by the constants, {border[0]:.0f} and {border[1]:.0f}), 32 MiB of values at a time"
    assert f"{len(stopwatch.asked)} runs: thinned from" in record.message
    assert record.message.endswith(chosen)


def test_a_challenger_must_stay_better_run_after_run() -> None:
    times = {
        "usual": [9.0, 10.0, 10.0, 10.0],  # the first one does not count
        "always": [8.0, 9.9, 9.9],  # the shortest does
        "at first": [8.9, 9.5, 9.5],
        "never": [9.5],
    }
    asked = {choice: iter(values) for choice, values in times.items()}
    assert clearly_best(list(times), lambda choice: next(asked[choice])) == "always"
    assert not [choice for choice, values in asked.items() if list(values)]
    times = {"usual": [9.0, 10.0, 8.0], "lucky": [8.0, 8.0]}
    asked = {choice: iter(values) for choice, values in times.items()}
    assert clearly_best(list(times), lambda choice: next(asked[choice])) == "usual"


def test_models_that_are_loaded_are_measured_and_others_are_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(measuring, "measure", lambda engine, probe: NEVER_THINNED)
    folder = publish(tmp_path, "model", NETWORK)
    loaded = load(folder, device="cpu")
    loaded.prepare_monte_carlo()
    assert vars(loaded)["_engine"].costs is NEVER_THINNED
    made = model_of(NETWORK)
    made.prepare_monte_carlo()
    assert vars(made)["_engine"].costs is CONSTANTS
