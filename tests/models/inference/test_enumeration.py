"""Every way of estimating against exact answers, by enumerating all masks of small networks.

An estimate is a random variable: over many seeds its average must be the exact value (bias), and its own
standard errors must be as large as its errors are (calibration, coverage). The seeds are always the same
ones; what they draw is what a generator happens to draw, the same wherever this runs.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from functools import cache

import numpy as np
import pytest
from scipy import stats

from dropserve_models.inference.masks import strata
from dropserve_models.prediction import Masks, MonteCarloOptions
from support.exact import Moments, Wide, enumerate_masks, moments
from support.onnx_models import Array, mlp
from support.ways import WAYS, InBlocks

SEEDS = 200
ROWS: Array = np.random.default_rng(1).normal(size=(4, 3)).astype(np.float32)
NETWORKS = {
    "softmax": mlp([3, 40, 8, 3], [0.25, 0.0, 0.5], last="Softmax", seed=4),
    "sigmoid": mlp([3, 10, 1], [0.2, 0.5], last="Sigmoid", seed=3),
    "regression": mlp([3, 8, 7, 2], [0.0, 0.33, 0.5], seed=2),
}
"""Their last dropout is integrated by several draws a pass; not at all, since passes are cheap; exactly."""


@dataclass(frozen=True)
class Case:
    """A way, a network, and how many passes of which kind."""

    way: str
    name: str
    passes: int
    masks: Masks

    def __str__(self) -> str:
        return f"{self.way}, {self.name}, {self.passes} {self.masks}"


def cases() -> list[Case]:
    """Many numbers of passes where masks are drawn from a seed, and where not; a few in every way."""
    found = []
    for way in WAYS:
        thorough = way in ("in blocks", "in one graph")
        asked: list[tuple[int, Masks]] = [(10, "stratified"), (37, "stratified"), (50, "independent")]
        if thorough:
            asked += [(2, "stratified"), (100, "stratified"), (2, "independent"), (10, "independent")]
        if "orthogonal" in way:
            asked = [(10, "stratified")]
        names = (
            list(NETWORKS) if thorough else ["softmax"] if "orthogonal" in way else ["softmax", "regression"]
        )
        found += [Case(way, name, *each) for name in names for each in asked]
    return found


CASES = pytest.mark.parametrize("case", cases(), ids=str)


@dataclass(frozen=True)
class Runs:
    """Estimates over seeds: [seeds, rows, outputs], entropies [seeds, rows]; empty where there are none."""

    mean: Wide
    variance: Wide
    standard_error: Wide
    std_standard_error: Wide
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
def runs(case: Case) -> Runs:
    way = WAYS[case.way](NETWORKS[case.name].onnx(), ROWS)
    answers = []
    for seed in range(SEEDS):
        answers.append(way.ask(ROWS, MonteCarloOptions(case.passes, seed, masks=case.masks)))
        if isinstance(way, InBlocks):
            assert way.shares_products is ("orthogonal" in case.way)
    columns = []
    for field in fields(Runs):
        values = [getattr(answer, field.name) for answer in answers]
        columns.append(np.array([[] if value is None else value for value in values], np.float64))
    return Runs(*columns)


def assert_unbiased(estimates: Wide, truth: Wide, allowed: Wide | float = 0.0) -> None:
    """The average over seeds is within 5 of its own standard errors, and `allowed`, of the truth."""
    error = estimates.std(axis=0, ddof=1) / np.sqrt(len(estimates))
    difference = np.abs(estimates.mean(axis=0) - truth)
    np.testing.assert_array_less(difference, 5.0 * error + allowed + 1e-6 * np.abs(truth) + 1e-9)


@CASES
def test_bias(case: Case) -> None:
    found, truth = runs(case), exact(case.name)
    assert_unbiased(found.mean, truth.mean)
    # Batch means of strata that are not all of one size are the one approximation.
    uneven = len(strata(case.passes, case.masks)) > 1
    assert_unbiased(found.variance, truth.variance, 0.03 * truth.variance if uneven else 0.0)
    if case.name == "regression":
        assert found.mutual_information.size == 0
        return
    assert_unbiased(found.expected_entropy, truth.expected_entropy)
    # The entropy of an estimated mean: its own variance times the entropy's curvature, to second order.
    curvature = (truth.variance / truth.mean).sum(axis=1) / (2.0 * case.passes)
    assert_unbiased(found.predictive_entropy, truth.predictive_entropy, 1.25 * curvature)
    assert_unbiased(found.mutual_information, truth.mutual_information, 1.25 * curvature)
    assert (found.mutual_information >= 0.0).all()


def degrees(case: Case) -> int:
    """Of freedom, of its standard errors."""
    return sum(count for _, count in strata(case.passes, case.masks)) - 1


def assert_honest(errors: Wide, told: Wide, case: Case, *, calibrated: float, covered: float) -> None:
    """The squares of what is `told` are on average those of the `errors`, and two of it hold the truth.

    So often as Student's t says, within `covered`; the averages are at least `calibrated` times the errors'.
    """
    calibration = (told**2).mean(axis=0) / (errors**2).mean(axis=0)
    np.testing.assert_array_less(calibrated, calibration)
    np.testing.assert_array_less(calibration, 1.6)
    expected = 1.0 - 2.0 * float(stats.t.sf(2.0, degrees(case)))
    assert float((np.abs(errors) < 2.0 * told).mean()) == pytest.approx(expected, abs=covered)


@pytest.mark.parametrize("case", [case for case in cases() if case.passes >= 10], ids=str)
def test_standard_error_is_honest(case: Case) -> None:
    found = runs(case)
    # Two strata of few units are equal now and then, and their error is told to be next to none.
    covered = (0.25 if case.name == "regression" else 0.1) if degrees(case) == 1 else 0.07
    assert_honest(
        found.mean - exact(case.name).mean, found.standard_error, case, calibrated=0.6, covered=covered
    )


@pytest.mark.parametrize("case", [case for case in cases() if case.passes >= 10], ids=str)
def test_standard_error_of_the_standard_deviation_is_honest(case: Case) -> None:
    """From some 20 passes on; 10 independent ones tell too little of how heavy the tails are."""
    found = runs(case)
    few = case.passes == 10 and case.masks == "independent"
    errors = np.sqrt(found.variance) - np.sqrt(exact(case.name).variance)
    calibrated, covered = (0.4, 0.16) if few else (0.6, 0.1)
    assert_honest(errors, found.std_standard_error, case, calibrated=calibrated, covered=covered)


@pytest.mark.parametrize("passes", [2, 10])
@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("way", ["in blocks", "in one graph"])
def test_stratified_masks_are_never_worse(way: str, name: str, passes: int) -> None:
    masks: list[Masks] = ["independent", "stratified"]
    independent, stratified = (runs(Case(way, name, passes, each)).mean for each in masks)
    gain = independent.var(axis=0).sum() / stratified.var(axis=0).sum()
    assert gain > (0.8 if passes == 2 else 1.2)
