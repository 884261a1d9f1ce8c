"""The estimators against exact answers, by enumerating all masks of small networks.

An estimate is a random variable: over many seeds its average must be the exact value (bias), and its own
standard error must be as large as its errors are (calibration, coverage).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np
import pytest
from scipy import stats

from dropserve_models.inference.masks import strata
from dropserve_models.prediction import Masks, MonteCarloOptions
from support.engines import engine_of, small_of
from support.exact import Moments, Wide, enumerate_masks, moments
from support.onnx_models import Array, Mlp, mlp

PASSES = [2, 5, 10, 20, 37, 100]
MASKS: list[Masks] = ["independent", "stratified"]
WAYS = ["in blocks", "in one graph"]
"""How a request is computed: large ones and those with a seed, and small ones without."""
ROWS: Array = np.random.default_rng(1).normal(size=(4, 3)).astype(np.float32)
NETWORKS = {
    "softmax": mlp([3, 3, 2, 3], [0.1, 0.5, 0.33], last="Softmax", seed=4),
    "sigmoid": mlp([3, 3, 3, 1], [0.0, 0.3, 0.5], last="Sigmoid", seed=5),
    "regression": mlp([3, 3, 3, 2], [0.1, 0.25, 0.5], seed=2),
}


@dataclass(frozen=True)
class Runs:
    """Estimates over seeds: [seeds, rows, outputs], entropies [seeds, rows]."""

    mean: Wide
    variance: Wide
    standard_error: Wide
    predictive_entropy: Wide
    expected_entropy: Wide
    mutual_information: Wide


@cache
def exact(name: str) -> Moments:
    network = NETWORKS[name]
    found = moments(*enumerate_masks(network, ROWS))
    if network.last != "Sigmoid":
        return found
    both = np.concatenate([1.0 - found.mean, found.mean], axis=1)
    return Moments(both, found.variance.repeat(2, 1), found.predictive_entropy, found.expected_entropy)


@cache
def small(name: str, passes: int, masks: Masks, way: str) -> Runs:
    return run(NETWORKS[name], passes, masks, way, seeds=300)


def run(network: Mlp, passes: int, masks: Masks, way: str, seeds: int) -> Runs:
    if way == "in one graph":
        graph = small_of(network.onnx(), ROWS)
        answers = [graph.run([ROWS], MonteCarloOptions(passes, masks=masks))[0] for _ in range(seeds)]
    else:
        engine = engine_of(network.onnx())
        answers = [engine.run(ROWS, MonteCarloOptions(passes, seed, masks=masks)) for seed in range(seeds)]

    def stack(field: str) -> Wide:
        values = [getattr(answer, field) for answer in answers]
        return np.stack([np.zeros(1) if value is None else value for value in values]).astype(np.float64)

    return Runs(
        stack("mean"), stack("variance"), stack("standard_error"),
        stack("predictive_entropy"), stack("expected_entropy"), stack("mutual_information"),
    )  # fmt: skip


def assert_unbiased(estimates: Wide, truth: Wide, allowed: Wide | float = 0.0) -> None:
    """The average over seeds is within 5 of its own standard errors, and `allowed`, of the truth."""
    error = estimates.std(axis=0, ddof=1) / np.sqrt(len(estimates))
    difference = np.abs(estimates.mean(axis=0) - truth)
    np.testing.assert_array_less(difference, 5.0 * error + allowed + 1e-6 * np.abs(truth) + 1e-9)


@pytest.mark.parametrize("passes", PASSES)
@pytest.mark.parametrize("masks", MASKS)
@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("way", WAYS)
def test_bias(way: str, name: str, masks: Masks, passes: int) -> None:
    network, truth = NETWORKS[name], exact(name)
    runs = small(name, passes, masks, way)
    assert_unbiased(runs.mean, truth.mean)
    # Batch means of strata that are not all of one size are the one approximation.
    uneven = len(strata(passes, masks)) > 1
    assert_unbiased(runs.variance, truth.variance, 0.03 * truth.variance if uneven else 0.0)
    if not network.last:
        return
    assert_unbiased(runs.expected_entropy, truth.expected_entropy)
    # The entropy of an estimated mean: its own variance times the entropy's curvature, to second order.
    curvature = (truth.variance / truth.mean).sum(axis=1) / (2.0 * passes)
    assert_unbiased(runs.predictive_entropy, truth.predictive_entropy, 1.25 * curvature)
    assert_unbiased(runs.mutual_information, truth.mutual_information, 1.25 * curvature)
    assert (runs.mutual_information >= 0.0).all()


@pytest.mark.parametrize("passes", PASSES)
@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("way", WAYS)
def test_stratified_masks_are_never_worse(way: str, name: str, passes: int) -> None:
    independent, stratified = (small(name, passes, masks, way).mean for masks in MASKS)
    gain = independent.var(axis=0).sum() / stratified.var(axis=0).sum()
    assert gain > (0.8 if passes == 2 else 1.2)


LARGE = mlp([3, 10, 1], [0.2, 0.5], last="Sigmoid", seed=3)


@pytest.mark.parametrize("passes", [10, 20, 21, 37, 100])
@pytest.mark.parametrize("masks", MASKS)
@pytest.mark.parametrize("way", WAYS)
def test_standard_error_is_honest(way: str, masks: Masks, passes: int) -> None:
    """Its square is on average the variance of the errors; 2 of them hold the truth as Student's t says."""
    truth = moments(*enumerate_masks(LARGE, ROWS)).mean
    runs = run(LARGE, passes, masks, way, seeds=600)
    errors, standard_error = (runs.mean[:, :, 1:] - truth), runs.standard_error[:, :, 1:]
    calibration = (standard_error**2).mean(axis=0) / (errors**2).mean(axis=0)
    np.testing.assert_array_less(calibration, 1.5)
    np.testing.assert_array_less(0.75, calibration)
    covered = float((np.abs(errors) < 2.0 * standard_error).mean())
    degrees = sum(count for _, count in strata(passes, masks)) - 1
    expected = 1.0 - 2.0 * float(stats.t.sf(2.0, degrees))
    assert covered == pytest.approx(expected, abs=0.06)
