"""How good fitted pipelines are with dropout on, many at once, on rows they have not learned from."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dropserve_models.training.batches import Index, padded
from dropserve_models.training.losses import GaussianNoise
from dropserve_models.training.pipelines import Fitted
from dropserve_models.training.randomness import derive
from dropserve_models.training.search.passes import passes_of
from dropserve_models.training.table import Table
from dropserve_models.training.task import Goal
from dropserve_models.training.threads import limited_threads

WORST = float(np.finfo(np.float32).max)
"""Stands for errors that float32 can't hold: a row far from all others is a bad score, not the end."""

BLOCK_UNITS = 2**22
"""Of one layer, of all members together, that a pass computes at once."""


def monte_carlo_scores(
    fitted: Sequence[Fitted],
    rows: Sequence[Index],
    table: Table,
    goal: Goal,
    passes: int,
    seed: np.random.SeedSequence,
) -> list[dict[str, float]]:
    """Metrics of each pipeline's Monte Carlo predictions on rows of its own; all of one network shape.

    For regression `rmse` of the mean over the passes and, where noise is predicted, `log_likelihood`: Gal's
    (2016) predictive log-likelihood, the logarithm of the mean over the passes of the Gaussian density, in
    the target's units and nats a row; both are means over the targets where there are several. For
    classifiers `accuracy` and `log_likelihood` of the mean probabilities.

    Parameters
    ----------
    rows : sequence of ndarray
        For each pipeline, the numbers of the table's rows to be judged on.
    passes : int
        With independent masks; one is enough where nothing is dropped.
    """
    index, places = padded(rows)
    weights = np.ones(index.shape, np.float32) if places is None else places
    found = []
    for block, child in _blocks(fitted, index, seed):
        with limited_threads(fitted[0].pipeline.network.parameters.numel(), block.size):
            found.append(_Sums(fitted, block).measure(table, goal, passes, child))
    totals = {name: np.concatenate([one[name] for one in found], axis=1) for name in found[0]}
    parts = weights / weights.sum(axis=1, keepdims=True)
    means = {name: (values * parts).sum(axis=1) for name, values in totals.items()}
    if "squared_error" in means:
        means["rmse"] = np.sqrt(means.pop("squared_error"))
    return [{name: float(values[member]) for name, values in means.items()} for member in range(len(fitted))]


def _blocks(
    fitted: Sequence[Fitted], index: Index, seed: np.random.SeedSequence
) -> Iterator[tuple[Index, np.random.SeedSequence]]:
    widest = max(fitted[0].pipeline.network.sizes)
    width = max(1, BLOCK_UNITS // (len(fitted) * widest))
    starts = range(0, index.shape[1], width)
    for start, child in zip(starts, derive(seed, len(starts)), strict=True):
        yield index[:, start : start + width], child


class _Sums:
    """Sums over the passes, for some rows of every member."""

    def __init__(self, fitted: Sequence[Fitted], index: Index) -> None:
        self._fitted = fitted
        self._index = index

    def measure(
        self, table: Table, goal: Goal, passes: int, seed: np.random.SeedSequence
    ) -> dict[str, NDArray[np.float64]]:
        """Terms of each metric's mean, [members, rows]."""
        with torch.inference_mode():
            outputs = passes_of(self._fitted, self._index, table, passes, seed)
            if goal.is_classification:
                return self._classes(outputs, torch.from_numpy(goal.values[self._index].astype(np.int64)))
            return self._numbers(outputs, goal.values[self._index].astype(np.float64))

    def _classes(self, outputs: Iterator[Tensor], classes: Tensor) -> dict[str, NDArray[np.float64]]:
        total, count = torch.zeros(()), 0
        for count, logits in enumerate(outputs, 1):  # noqa: B007 - the number of passes is needed after
            total = total + logits.softmax(dim=2)
        mean = total / count
        right = mean.gather(2, classes.unsqueeze(2)).squeeze(2).double().nan_to_num(nan=0.0)
        return {
            "accuracy": (mean.argmax(dim=2) == classes).double().numpy(),
            "log_likelihood": right.clamp(min=torch.finfo(torch.float32).tiny).log().numpy(),
        }

    def _numbers(
        self, outputs: Iterator[Tensor], targets: NDArray[np.float64]
    ) -> dict[str, NDArray[np.float64]]:
        scalings = [one.pipeline.target_scaling for one in self._fitted]
        centre = np.stack([scaling.mean for scaling in scalings if scaling is not None])[:, None]
        spread = np.stack([scaling.std for scaling in scalings if scaling is not None])[:, None]
        truth = torch.from_numpy(((targets - centre) / spread).astype(np.float32))
        objective = self._fitted[0].pipeline.objective
        ones = np.ones(targets.shape[2], np.float32)
        scales = [one.pipeline.noise_scale for one in self._fitted]
        scale = torch.from_numpy(np.log([[ones if one is None else one] for one in scales]))
        total, density, count = torch.zeros(()), torch.full((), -math.inf), 0
        for count, output in enumerate(outputs, 1):  # noqa: B007 - the number of passes is needed after
            if not isinstance(objective, GaussianNoise):
                total = total + output
                continue
            mean, log_variance = objective.split(output)
            log_variance = log_variance + scale
            total = total + mean
            squares = (truth - mean).square() * torch.exp(-log_variance)
            density = torch.logaddexp(density, -0.5 * (squares + log_variance))
        error = (total / count - truth).double().nan_to_num(WORST, WORST, -WORST).numpy() * spread
        terms = {"squared_error": np.square(error).mean(axis=2)}
        if isinstance(objective, GaussianNoise):
            density = density.double().nan_to_num(nan=-WORST, neginf=-WORST)
            logs = density.numpy() - math.log(count) - 0.5 * math.log(2 * math.pi) - np.log(spread)
            terms["log_likelihood"] = logs.mean(axis=2)
        return terms
