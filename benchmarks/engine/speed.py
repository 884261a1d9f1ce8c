"""How long a call takes, ours and what one would write by hand."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from time import perf_counter

import torch

from benchmarks.engine.baselines import loop, repeated_batch
from benchmarks.engine.subjects import Subject
from benchmarks.networks import Network
from benchmarks.report import interleave
from dropserve_models import load
from dropserve_models.inference.deterministic import Session

LOOP, REPEATED, POINT, INDEPENDENT, DEFAULT, PRODUCT = (
    "loop",
    "repeated batch",
    "ONNX Runtime",
    "dropserve, independent",
    "dropserve",
    "matrix product",
)
PRODUCT_SIZE = 1024
WARM_CALLS = 600
"""Calls of a case before it is measured, if they take no longer than `WARM_SHARE` measurements.

Unseeded requests find their masks drawn by earlier ones. Which share does, settles after several hundred.
"""
WARM_SHARE = 3.0


def ours(passes: int) -> str:
    """The case of the default estimator with so many passes."""
    return f"{DEFAULT}, {passes} passes"


def measure(
    subject: Subject,
    rows: int,
    passes: int,
    others: Sequence[int],
    threads: int,
    rounds: int,
    seconds: float,
) -> dict[str, list[float]]:
    """Seconds a call of every case, round by round.

    Parameters
    ----------
    passes : int
        Of everything but `others`, which are passes that the default estimator is measured with, too.
    threads : int
        Of ONNX Runtime; those of torch are the caller's business.
    seconds : float
        How long to measure a case in a round; one call at least.
    """
    features = subject.rows(rows)
    session = Session((subject.folder / "model.onnx").read_bytes(), "cpu", threads)
    # Several models, because one keeps masks from a request to the next, within bounds.
    models = {n: load(subject.folder, device="cpu", threads=threads) for n in {passes, *others}}
    independent = load(subject.folder, device="cpu", threads=threads)
    square = torch.rand(PRODUCT_SIZE, PRODUCT_SIZE)

    def default(n: int) -> Callable[[], object]:
        return lambda: models[n].predict(features, passes=n)

    calls: dict[str, Callable[[], object]] = {
        LOOP: lambda: loop(subject.module, features, passes),
        REPEATED: lambda: repeated_batch(subject.module, features, passes),
        POINT: lambda: session.run(features),
        INDEPENDENT: lambda: independent.predict(features, passes=passes, masks="independent"),
        **{ours(n): default(n) for n in models},
        PRODUCT: lambda: torch.mm(square, square),
    }
    return interleave({name: timed(call, seconds) for name, call in calls.items()}, rounds)


def multiplications_left(network: Network, rows: int, passes: int) -> float:
    """Multiplications of `passes` passes once dropped units are left out, on average.

    Layers before the first dropout count once a row. A later one counts, for every pass and row, the inputs
    that its dropout keeps times the outputs that the next layer's dropout keeps.
    """
    kept = [size * (1 - rate) for size, rate in zip(network.sizes, (*network.rates, 0.0), strict=True)]
    first = next(layer for layer, rate in enumerate(network.rates) if rate)
    once = sum(network.sizes[i] * network.sizes[i + 1] for i in range(first))
    often = sum(kept[i] * kept[i + 1] for i in range(first, len(network.rates)))
    return rows * (once + passes * often)


def timed(call: Callable[[], object], seconds: float) -> Callable[[], float]:
    """Warm a call up; the result measures the mean time of a call."""
    count, start = 0, perf_counter()
    call()
    while (count := count + 1) < WARM_CALLS and perf_counter() - start < WARM_SHARE * seconds:
        call()
    count = max(1, round(seconds / ((perf_counter() - start) / count)))

    def measure() -> float:
        for _ in range(count // 10):  # the case before has filled the caches with its own
            call()
        start = perf_counter()
        for _ in range(count):
            call()
        return (perf_counter() - start) / count

    return measure
