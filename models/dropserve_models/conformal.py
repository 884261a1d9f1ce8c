"""Conformal prediction: intervals and prediction sets of asked coverage, from scores on rows held out.

With the scores of n calibration rows ordered, s_(1) <= ... <= s_(n), the score of a new row is at most
s_(k) with k = ceil((n + 1) coverage) at least as often as asked, whatever the model and the data, provided
that the new row and the calibration rows are exchangeable (Vovk et al. 2005; Lei et al. 2018, Angelopoulos &
Bates 2023). Without ties it is at most k / (n + 1), that is at most 1 / (n + 1) more often.

Regression: the score is |y - mean| / s, with s the standard deviation that the mode predicts, so that the
interval mean - q s to mean + q s is wide where the model is unsure. Classifiers: the score is 1 - p of the
true class, and the set holds every class with 1 - p <= q, which are the smallest sets on average (LAC:
Sadinle, Lei & Wasserman 2019). Such a set can be empty where no class is likely enough; the most probable
class is then put in, which can only raise the coverage.
"""

from __future__ import annotations

from bisect import bisect_left
from dataclasses import replace
from math import ceil, floor

import numpy as np
from numpy.typing import NDArray

from dropserve_models.calibration import CalibrationRecord, ModeRecord
from dropserve_models.errors import InputError, IntervalUnavailable
from dropserve_models.prediction import Prediction

Doubles = NDArray[np.float64]

_ROUNDING = 1e-9  # (n + 1) coverage may be a whole number and lie this much above it in float64

MOST_SCORES = 4096
"""Of more calibration rows only some scores are kept."""
_UPPERMOST = 2048


class Intervals:
    """Adds intervals, or prediction sets, to a model's predictions.

    Parameters
    ----------
    name : str
        The model's.
    calibration : CalibrationRecord or None
        Without one every request is refused.
    classifier : bool
    """

    def __init__(self, name: str, calibration: CalibrationRecord | None, *, classifier: bool) -> None:
        self._name = name
        self._calibration = calibration
        self._classifier = classifier
        noise = None if calibration is None else calibration.noise_variance
        self._noise_variance = None if noise is None else np.asarray(noise)

    def check(self, coverage: float, *, monte_carlo: bool) -> None:
        """Refuse a coverage that predictions of a mode can't have.

        Raises
        ------
        InputError
            It is not within (0, 1), or more than the calibration rows can tell.
        IntervalUnavailable
            The model is not calibrated, or not in this mode.
        """
        self._quantiles(coverage, monte_carlo=monte_carlo)

    def add(self, prediction: Prediction, coverage: float) -> Prediction:
        """The prediction with `interval_lower` and `interval_upper`, or with `prediction_set`.

        Raises what `check` raises.
        """
        quantiles = self._quantiles(coverage, monte_carlo=prediction.passes > 0)
        if self._classifier:
            return replace(prediction, prediction_set=prediction_set(prediction.mean, quantiles[0]))
        mean = prediction.mean.astype(np.float64)
        half = quantiles * standard_deviation(prediction, self._noise_variance)
        lower, upper = _float32(mean - half, -np.inf), _float32(mean + half, np.inf)
        return replace(prediction, interval_lower=lower, interval_upper=upper)

    def _quantiles(self, coverage: float, *, monte_carlo: bool) -> Doubles:
        if not 0.0 < coverage < 1.0:
            raise InputError(
                "interval", f"interval is {coverage:g}; it must be a coverage above 0 and below 1, e.g. 0.9"
            )
        calibration = self._calibration
        if calibration is None:
            raise IntervalUnavailable(
                f"model {self._name!r} can't answer with intervals: it was published without a calibration; "
                "train it with --calibration cv, or with a fraction of the rows"
            )
        mode = calibration.monte_carlo if monte_carlo else calibration.deterministic
        if mode is None:
            raise IntervalUnavailable(
                f"model {self._name!r} can't answer with intervals and error bars at once: it was "
                "calibrated for deterministic requests only"
            )
        return quantiles(mode, calibration.rows, coverage)


def _float32(bound: Doubles, outward: float) -> NDArray[np.float32]:
    """Rounded away from the interval's middle: a target on the bound itself stays inside."""
    with np.errstate(over="ignore"):
        nearest = bound.astype(np.float32)
        inside = nearest > bound if outward < 0.0 else nearest < bound
        return np.where(inside, np.nextafter(nearest, np.float32(outward)), nearest)


def rank(rows: int, coverage: float) -> int:
    """Which of the ordered scores of so many rows has the coverage: ceil((rows + 1) coverage).

    Raises
    ------
    InputError
        None of them has.
    """
    wanted = max(ceil((rows + 1) * coverage - _ROUNDING), 1)
    if wanted > rows:
        raise InputError(
            "interval",
            f"interval is {coverage:g}; the model was calibrated on {rows} rows, which tell of coverages "
            f"up to {floor(1e6 * rows / (rows + 1)) / 1e6:g}",
        )
    return wanted


def quantiles(mode: ModeRecord, rows: int, coverage: float) -> Doubles:
    """The score of that rank in each list; where it was not kept, the next higher one.

    Raises what `rank` raises.
    """
    place = rank(rows, coverage)
    index = place - 1 if mode.ranks is None else bisect_left(mode.ranks, place)
    return np.array([scores[index] for scores in mode.scores])


def prediction_set(probabilities: NDArray[np.float32], quantile: float) -> NDArray[np.float32]:
    """1 for the classes that are in, 0 for those that are not, [rows, classes]; never none of a row."""
    inside = 1.0 - probabilities.astype(np.float64) <= quantile
    inside[np.arange(len(inside)), probabilities.argmax(axis=1)] = True
    return inside.astype(np.float32)


def standard_deviation(prediction: Prediction, noise_variance: Doubles | None = None) -> Doubles:
    """s of a regression, [rows, outputs], in the targets' units.

    The root of the variance over the passes, where there are any, plus that of the noise: what the model
    predicts, or else `noise_variance` [outputs]. 1 where nothing is known of the noise.
    """
    if prediction.aleatoric_variance is not None:
        noise = prediction.aleatoric_variance.astype(np.float64)
    elif noise_variance is not None:
        noise = np.broadcast_to(noise_variance, prediction.mean.shape)
    else:
        return np.ones(prediction.mean.shape)
    return np.sqrt(noise if prediction.variance is None else prediction.variance + noise)


def regression_scores(
    prediction: Prediction, targets: Doubles, noise_variance: Doubles | None = None
) -> Doubles:
    """Scores |y - mean| / s, [rows, targets]."""
    error = np.abs(targets - prediction.mean)
    s = standard_deviation(prediction, noise_variance)
    # No noise at all: right or infinitely wrong.
    return np.divide(error, s, out=np.where(error > 0.0, np.inf, 0.0), where=s > 0.0)


def classification_scores(prediction: Prediction, classes: NDArray[np.int64]) -> Doubles:
    """Scores 1 - p of the true class, [rows, 1]."""
    right = prediction.mean[np.arange(len(classes)), classes].astype(np.float64)
    return np.maximum(1.0 - right, 0.0)[:, None]


def thinned_ranks(rows: int) -> tuple[int, ...] | None:
    """Which scores of so many rows to keep; None: all.

    The uppermost ones, which high coverages ask for, and an even choice of the others: a coverage that
    falls between two of them gets the upper one, and is exceeded by less than 1 / 2000.
    """
    if rows <= MOST_SCORES:
        return None
    below = rows - _UPPERMOST
    step = ceil(below / (MOST_SCORES - _UPPERMOST))
    return (*range(step, below, step), *range(below, rows + 1))
