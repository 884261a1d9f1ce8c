"""A stand-in for `dropserve_models.Model`: instant, observable, and able to wait or fail when told."""

from __future__ import annotations

import threading
from collections.abc import Hashable, Iterator, Sequence
from dataclasses import replace

import numpy as np

from dropserve_models.errors import InputError, IntervalUnavailable
from dropserve_models.inference.whole import Whole
from dropserve_models.prediction import FloatArray, ModelInfo, MonteCarloOptions, Prediction, take_rows

FAKE_INFO = ModelInfo(
    name="fake",
    version=1,
    task="regression",
    feature_names=("a", "b", "c"),
    output_names=("y", "z"),
    drop_rates=(0.5,),
    predicts_noise=False,
    provider="CPUExecutionProvider",
)
WAIT_SECONDS = 30.0


class FakeModel:
    """Answers [row sum, row sum + 1], with variance 4 in Monte Carlo mode.

    Attributes
    ----------
    calls : list of (features, options)
        What `run` was asked, in order.
    entered : threading.Semaphore
        Released whenever a run begins.
    gate : threading.Event
        Runs wait for it; set from the start.
    error : Exception or None
        What runs raise.
    prepared : int
        How often `prepare_monte_carlo` was called.
    pauses : int
        How often `steps` pauses before it answers.
    steps_taken : int
        How many it has taken.
    wholes : list of (Whole or None)
        What `steps` was told its rows are a part of, in order.
    """

    def __init__(self, info: ModelInfo = FAKE_INFO, unavailable: str | None = None) -> None:
        self.info = info
        self.monte_carlo_unavailable = unavailable
        self.calls: list[tuple[FloatArray, MonteCarloOptions | None]] = []
        self.entered = threading.Semaphore(0)
        self.gate = threading.Event()
        self.gate.set()
        self.error: Exception | None = None
        self.prepared = 0
        self.pauses = 0
        self.steps_taken = 0
        self.wholes: list[Whole | None] = []

    @property
    def monte_carlo_prepared(self) -> bool:
        return self.prepared > 0

    def prepare_monte_carlo(self) -> None:
        self.prepared += 1

    def together(self, rows: int, options: MonteCarloOptions) -> Hashable | None:
        return None if options.seed is not None or options.adaptive else options

    def run_together(self, features: Sequence[FloatArray], options: MonteCarloOptions) -> list[Prediction]:
        whole = self.run(np.concatenate(features), options)
        ends = np.cumsum([len(part) for part in features])
        return [
            take_rows(whole, end - len(part), end) for part, end in zip(features, ends.tolist(), strict=True)
        ]

    def check_interval(self, coverage: float, *, monte_carlo: bool) -> None:
        """Calibrated for coverages up to .9, in deterministic mode."""
        if monte_carlo:
            raise IntervalUnavailable("the fake is calibrated for deterministic requests only")
        if not 0.0 < coverage <= 0.9:
            raise InputError("interval", f"interval is {coverage}; it must be above 0, and at most 0.9")

    def add_interval(self, prediction: Prediction, coverage: float) -> Prediction:
        """The mean, less and more ten times the coverage."""
        half = np.float32(10 * coverage)
        return replace(
            prediction, interval_lower=prediction.mean - half, interval_upper=prediction.mean + half
        )

    def steps(
        self, features: FloatArray, monte_carlo: MonteCarloOptions, whole: Whole | None = None
    ) -> Iterator[Prediction | None]:
        self.wholes.append(whole)
        for _ in range(self.pauses):
            self.steps_taken += 1
            yield None
        self.steps_taken += 1
        yield self.run(features, monte_carlo)

    def run(self, features: FloatArray, monte_carlo: MonteCarloOptions | None = None) -> Prediction:
        self.calls.append((features, monte_carlo))
        self.entered.release()
        assert self.gate.wait(WAIT_SECONDS)
        if self.error is not None:
            raise self.error
        sums = features.sum(axis=1, keepdims=True)
        mean = np.hstack([sums, sums + 1]).astype(np.float32)
        if monte_carlo is None:
            return Prediction(mean)
        shape = (monte_carlo.passes, *mean.shape)
        return Prediction(
            mean,
            passes=monte_carlo.passes,
            variance=np.full_like(mean, 4.0),
            standard_error=np.full_like(mean, 2.0 / monte_carlo.passes**0.5),
            quantiles=np.stack([mean + q for q in monte_carlo.quantiles]).astype(np.float32)
            if monte_carlo.quantiles
            else None,
            samples=np.broadcast_to(mean, shape).copy() if monte_carlo.return_samples else None,
        )


def fake_info(name: str, version: int = 1) -> ModelInfo:
    """The fake's description under another name."""
    return replace(FAKE_INFO, name=name, version=version)
