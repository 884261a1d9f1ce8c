"""How many passes our estimator needs for the accuracy of so many independent ones."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil, exp, log

import numpy as np
from numpy.typing import NDArray

from benchmarks.engine.subjects import Subject
from dropserve_models import Prediction, load
from dropserve_models.prediction import Masks

ROWS = 64
GRID = (2, 3, 4, 5, 6, 7, 8, 9, 10, 12, 14, 16, 18, 20, 25, 30, 35, 40, 45, 50, 60, 70, 80, 90, 100)
"""Passes at which the error is measured; between them it is interpolated."""
NEGLIGIBLE = 1e-3
"""Outputs whose predictive standard deviation is below this part of the largest are left out."""


@dataclass(frozen=True, slots=True)
class Errors:
    """Root mean square errors of one estimator at one number of passes, in predictive standard deviations.

    Attributes
    ----------
    mean, std : ndarray [rounds]
        Of the mean, and of the standard deviation.
    """

    mean: NDArray[np.float64]
    std: NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Accuracy:
    """What was found, each figure once a round of repetitions.

    Attributes
    ----------
    mean_error, std_error : list of float
        The root mean square error of the independent passes, in predictive standard deviations.
    mean_passes, std_passes : list of int
        The fewest passes of the default estimator whose error is at most that.
    """

    mean_error: list[float]
    std_error: list[float]
    mean_passes: list[int]
    std_passes: list[int]


def measure(subject: Subject, passes: int, rounds: int, repetitions: int, reference: int) -> Accuracy:
    """Compare the default estimator with `passes` independent ones.

    Parameters
    ----------
    rounds, repetitions : int
        Rounds, and repetitions in each: without a seed, as they are timed.
    reference : int
        Passes of the default estimator that stand for infinitely many.
    """
    model = load(subject.folder, device="cpu")
    features = subject.rows(ROWS)
    truth = model.predict(features, passes=reference, seed=2**63)

    def errors(passes: int, masks: Masks) -> Errors:
        squares = [
            _squares(model.predict(features, passes=passes, masks=masks), truth)
            for _ in range(rounds * repetitions)
        ]
        by_round = np.sqrt(np.reshape(squares, (rounds, repetitions, 2)).mean(1))
        return Errors(by_round[:, 0], by_round[:, 1])

    plain = errors(passes, "independent")
    of_mean, of_std = _root_mean_square(plain.mean), _root_mean_square(plain.std)
    ours = []
    for n in GRID:
        ours.append(errors(n, "stratified"))
        if (ours[-1].mean <= of_mean).all() and (ours[-1].std <= of_std).all():
            break
    return Accuracy(
        plain.mean.tolist(),
        plain.std.tolist(),
        [fewest(curve, of_mean) for curve in zip(*(errors.mean for errors in ours), strict=True)],
        [fewest(curve, of_std) for curve in zip(*(errors.std for errors in ours), strict=True)],
    )


def fewest(errors: Sequence[float], target: float) -> int:
    """The fewest passes whose error is at most `target`, given that of the first entries of `GRID`.

    Between two entries a power of the passes is assumed, i.e. a straight line in logarithms. Where no entry
    will do, the last one: it is as many as there are independent passes, so nothing has been gained.
    """
    reached = next((i for i, error in enumerate(errors) if error <= target), None)
    if reached is None:
        return GRID[-1]
    if reached == 0:
        return GRID[0]
    (few, many), (worse, better) = GRID[reached - 1 : reached + 1], errors[reached - 1 : reached + 1]
    share = log(worse / target) / log(worse / better)
    return ceil(exp(log(few) + share * log(many / few)) - 1e-9)


def _squares(found: Prediction, truth: Prediction) -> tuple[float, float]:
    """The mean squares of the errors of mean and standard deviation, in predictive variances."""
    std = _std(truth)
    counted = std > NEGLIGIBLE * std.max()
    of_mean = (found.mean.astype(np.float64) - truth.mean)[counted] / std[counted]
    of_std = (_std(found) - std)[counted] / std[counted]
    return float(np.mean(of_mean**2)), float(np.mean(of_std**2))


def _root_mean_square(values: NDArray[np.float64]) -> float:
    return float(np.sqrt(np.mean(values**2)))


def _std(prediction: Prediction) -> NDArray[np.float64]:
    assert prediction.variance is not None
    return np.sqrt(prediction.variance.astype(np.float64))
