"""How long a call takes on a GPU, ours and what one would write by hand."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

import numpy as np
import torch

from benchmarks.engine.baselines import loop, repeated_batch
from benchmarks.engine.speed import INDEPENDENT, LOOP, POINT, PRODUCT, REPEATED, ours, timed
from benchmarks.engine.subjects import Subject
from benchmarks.networks import Network
from benchmarks.report import interleave
from dropserve_models import load
from dropserve_models.inference.deterministic import Session

PRODUCT_SIZE = {"cpu": 256, "cuda": 8192}
ROOM = 0.9
"""The share of the free memory that the repeated batch may take; where it needs more, it is left out."""


@dataclass(frozen=True, slots=True)
class OnGpu:
    """What was measured.

    Attributes
    ----------
    times : dict of list of float
        Seconds a call of every case, round by round.
    peak : float
        Multiplications a second of the fastest matrix product.
    difference : float
        How far the mean is from the CPU's for the same seed, at most.
    device : str
        Where our Monte Carlo requests were computed.
    """

    times: dict[str, list[float]]
    peak: float
    difference: float
    device: str


def available() -> bool:
    """Whether there is a GPU to measure on."""
    return torch.cuda.is_available()


def measure(
    subject: Subject,
    rows: int,
    passes: int,
    rounds: int,
    seconds: float,
    device: Literal["cpu", "cuda"] = "cuda",
) -> OnGpu:
    """Measure every case; `device` "cpu" shows that they run."""
    features = subject.rows(rows)
    module = copy.deepcopy(subject.module).to(device)
    session = Session((subject.folder / "model.onnx").read_bytes(), device)
    default, independent = (load(subject.folder, device=device) for _ in range(2))
    size = PRODUCT_SIZE[device]
    square = torch.rand(size, size, device=device)

    def product() -> None:
        torch.mm(square, square)
        if device == "cuda":
            torch.cuda.synchronize()

    calls: dict[str, Callable[[], object]] = {
        LOOP: lambda: loop(module, features, passes, device),
        POINT: lambda: session.run(features),
        INDEPENDENT: lambda: independent.predict(features, passes=passes, masks="independent"),
        ours(passes): lambda: default.predict(features, passes=passes),
        PRODUCT: product,
    }
    if repeated_batch_fits(subject.network, rows, passes, device):
        calls[REPEATED] = lambda: repeated_batch(module, features, passes, device)
    times = interleave({name: timed(call, seconds) for name, call in calls.items()}, rounds)
    sample = features[:4096]
    on_cpu = load(subject.folder, device="cpu").predict(sample, passes=passes, seed=1).mean
    difference = float(np.abs(default.predict(sample, passes=passes, seed=1).mean - on_cpu).max())
    return OnGpu(times, size**3 / min(times[PRODUCT]), difference, str(default.monte_carlo_device))


def repeated_batch_fits(network: Network, rows: int, passes: int, device: str) -> bool:
    """Whether the largest layer's input and output, and the random numbers between, have room."""
    if device == "cpu":
        return True
    widest = max(inputs + 2 * outputs for inputs, outputs in pairwise(network.sizes))
    return 4 * rows * passes * widest < ROOM * torch.cuda.mem_get_info()[0]


def multiplications(network: Network, rows: int, passes: int) -> float:
    """Multiplications of `passes` passes, nothing left out; layers before the first dropout count once."""
    layers = [inputs * outputs for inputs, outputs in pairwise(network.sizes)]
    first = next(layer for layer, rate in enumerate(network.rates) if rate)
    return float(rows) * (sum(layers[:first]) + passes * sum(layers[first:]))
