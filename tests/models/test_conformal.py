"""Intervals and prediction sets: the right rank, exact coverage, and what is refused."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from fractions import Fraction
from itertools import permutations

import numpy as np
import pytest
from scipy import stats

from dropserve_models.calibration import CalibrationRecord, ModeRecord
from dropserve_models.conformal import (
    MOST_SCORES,
    Intervals,
    classification_scores,
    prediction_set,
    quantiles,
    rank,
    regression_scores,
    standard_deviation,
    thinned_ranks,
)
from dropserve_models.errors import InputError, IntervalUnavailable
from dropserve_models.prediction import Prediction


def record(
    *scores: list[float], monte_carlo: list[float] | None = None, noise: float | None = None
) -> CalibrationRecord:
    return CalibrationRecord(
        method="split",
        rows=len(scores[0]),
        guaranteed=True,
        noise_variance=None if noise is None else (noise,),
        deterministic=ModeRecord(scores=tuple(map(tuple, scores))),
        monte_carlo=None if monte_carlo is None else ModeRecord(scores=(tuple(monte_carlo),)),
    )


def floats(*values: float) -> np.ndarray:
    return np.array(values, np.float32)[:, None]


@pytest.mark.parametrize(
    ("rows", "coverage", "expected"),
    [
        (9, 0.9, 9),  # ceil(10 x .9)
        (10, 0.9, 10),  # ceil(9.9)
        (19, 0.95, 19),
        (99, 0.95, 95),
        (99, 0.07, 7),  # 100 x .07 is 7.000000000000001 in float64
        (100, 0.9, 91),
        (1, 0.5, 1),
        (1000, 1e-12, 1),
        (3, 0.75, 3),
    ],
)
def test_the_rank_is_the_ceiling(rows: int, coverage: float, expected: int) -> None:
    assert rank(rows, coverage) == expected


def test_the_rank_is_exact_for_every_percentage_and_number_of_rows() -> None:
    for rows in range(1, 300):
        for percent in range(1, 100):
            exact = -(-(rows + 1) * Fraction(percent, 100) // 1)
            if exact <= rows:
                assert rank(rows, percent / 100) == exact
            else:
                with pytest.raises(InputError):
                    rank(rows, percent / 100)


def test_what_too_few_rows_can_not_tell_is_refused_with_the_most_they_can() -> None:
    with pytest.raises(InputError, match=r"interval is 0\.95; .* on 18 rows, .* up to 0\.947368$") as refusal:
        rank(18, 0.95)
    assert refusal.value.field == "interval"
    assert rank(18, 0.947368) == 18


@pytest.mark.parametrize("coverage", [0.2, 0.5, 0.75])
def test_every_order_of_five_scores_is_covered_as_often_as_promised(coverage: float) -> None:
    # Exchangeable means that every order is as likely: exactly k / (n + 1) of them cover the last one.
    covered = Counter(
        last <= sorted(before)[rank(len(before), coverage) - 1]
        for *before, last in permutations([0.1, 0.4, 1.0, 2.5, 7.0])
    )
    assert (
        Fraction(covered[True], covered.total()) == Fraction(rank(4, coverage), 5) >= Fraction(str(coverage))
    )


def test_the_coverage_over_calibrations_is_beta_distributed() -> None:
    # Of n scores, the coverage of new rows is Beta(k, n + 1 - k) over the draws of the calibration rows.
    random, rows, coverage = np.random.default_rng(0), 60, 0.9
    draws = np.sort(random.normal(size=(4000, rows)), axis=1)
    place = rank(rows, coverage)
    coverages = stats.norm.cdf(draws[:, place - 1])
    assert stats.kstest(coverages, stats.beta(place, rows + 1 - place).cdf).pvalue > 0.01
    assert coverages.mean() == pytest.approx(place / (rows + 1), abs=3 * coverages.std() / 4000**0.5)


def test_regression_intervals_by_hand() -> None:
    mean, noise = floats(10.0, -2.0), floats(4.0, 0.25)
    point = Prediction(mean, aleatoric_variance=noise)
    calibrated = Intervals("m", record([0.5, 1.0, 3.0], monte_carlo=[1.0, 2.0, 4.0]), classifier=False)
    answer = calibrated.add(point, 0.5)
    np.testing.assert_array_equal(answer.interval_lower, floats(10 - 2, -2 - 0.5))
    np.testing.assert_array_equal(answer.interval_upper, floats(10 + 2, -2 + 0.5))
    assert answer.prediction_set is None
    np.testing.assert_array_equal(answer.mean, point.mean)

    bars = replace(point, passes=100, variance=floats(5.0, 0.0))  # s: 3 and 0.5; scores of this mode's own
    answer = calibrated.add(bars, 0.75)
    np.testing.assert_array_equal(answer.interval_lower, floats(10 - 4 * 3, -2 - 4 * 0.5))
    np.testing.assert_array_equal(answer.interval_upper, floats(10 + 4 * 3, -2 + 4 * 0.5))


def test_each_target_has_a_quantile_of_its_own() -> None:
    calibrated = Intervals("m", record([1.0, 2.0], [10.0, 20.0]), classifier=False)
    answer = calibrated.add(Prediction(np.zeros((1, 2), np.float32)), 0.5)
    assert answer.interval_upper is not None
    assert answer.interval_upper.tolist() == [[2.0, 20.0]]


def test_the_standard_deviation_of_each_kind_of_model() -> None:
    mean = floats(1.0, 2.0)
    predicted = Prediction(mean, aleatoric_variance=floats(4.0, 9.0))
    assert standard_deviation(predicted).ravel().tolist() == [2.0, 3.0]
    several = replace(predicted, passes=3, variance=floats(5.0, 16.0))
    assert standard_deviation(several, np.array([99.0])).ravel().tolist() == [3.0, 5.0]
    silent = Prediction(mean, passes=3, variance=floats(5.0, 16.0))
    assert standard_deviation(silent, np.array([4.0])).ravel().tolist() == [3.0, 20.0**0.5]
    assert standard_deviation(silent).ravel().tolist() == [1.0, 1.0]


def test_a_score_is_at_most_q_exactly_where_the_interval_holds_the_target() -> None:
    random = np.random.default_rng(1)
    prediction = Prediction(
        random.normal(size=(500, 1)).astype(np.float32),
        aleatoric_variance=random.gamma(2.0, size=(500, 1)).astype(np.float32),
    )
    targets = random.normal(scale=2.0, size=(500, 1))
    scores = regression_scores(prediction, targets)
    calibration = record(sorted(scores.ravel().tolist()))
    for coverage in (0.1, 0.5, 0.9, 0.99):
        answer = Intervals("m", calibration, classifier=False).add(prediction, coverage)
        assert answer.interval_lower is not None
        assert answer.interval_upper is not None
        held = (answer.interval_lower <= targets) & (targets <= answer.interval_upper)
        assert held.sum() == rank(500, coverage)  # the very target that made the quantile is not rounded away


def test_bounds_are_rounded_outward() -> None:
    # Where float32 is coarser than the noise, 128 here, the nearest values would be the mean itself.
    prediction = Prediction(floats(2e9, -2e9), aleatoric_variance=floats(1.0, 1.0))
    answer = Intervals("m", record([3.0]), classifier=False).add(prediction, 0.5)
    np.testing.assert_array_equal(answer.interval_lower, floats(2e9 - 128, -2e9 - 128))
    np.testing.assert_array_equal(answer.interval_upper, floats(2e9 + 128, -2e9 + 128))
    exact = Intervals("m", record([2.0]), classifier=False).add(Prediction(floats(4.0, 0.0)), 0.5)
    np.testing.assert_array_equal(exact.interval_upper, floats(6.0, 2.0))


def test_without_any_noise_an_answer_is_right_or_infinitely_wrong() -> None:
    exact = Prediction(floats(1.0, 1.0), aleatoric_variance=floats(0.0, 0.0))
    assert regression_scores(exact, np.array([[1.0], [2.0]])).ravel().tolist() == [0.0, np.inf]


def test_prediction_sets_by_hand() -> None:
    probabilities = np.array([[0.75, 0.125, 0.125], [0.375, 0.375, 0.25], [1.0, 0.0, 0.0]], np.float32)
    assert prediction_set(probabilities, 0.625).tolist() == [[1, 0, 0], [1, 1, 0], [1, 0, 0]]
    assert prediction_set(probabilities, 1.0).tolist() == [[1, 1, 1]] * 3
    # Nobody is likely enough: the most probable one is in even so.
    assert prediction_set(probabilities, 0.0).tolist() == [[1, 0, 0], [1, 0, 0], [1, 0, 0]]


def test_classes_are_held_by_their_scores() -> None:
    random = np.random.default_rng(2)
    probabilities = random.dirichlet([0.5, 0.5, 0.5], size=400).astype(np.float32)
    classes = random.integers(0, 3, size=400)
    scores = classification_scores(Prediction(probabilities), classes).ravel()
    np.testing.assert_allclose(scores, 1.0 - probabilities[np.arange(400), classes], rtol=1e-6)
    quantile = float(np.sort(scores)[rank(400, 0.8) - 1])
    held = prediction_set(probabilities, quantile)[np.arange(400), classes] == 1
    assert (held >= (scores <= quantile)).all()
    assert held.sum() >= rank(400, 0.8)


def test_sets_of_new_rows_hold_the_class_as_often_as_promised() -> None:
    random = np.random.default_rng(3)

    def drawn(rows: int) -> tuple[Prediction, np.ndarray]:
        probabilities = random.dirichlet([1.0, 2.0, 0.7, 0.7], size=rows).astype(np.float32)
        # A model that is wrong about its own certainty: the truth is drawn from flatter probabilities.
        flat = probabilities**0.5 / (probabilities**0.5).sum(axis=1, keepdims=True)
        return Prediction(probabilities), (random.random((rows, 1)) > flat.cumsum(axis=1)).sum(axis=1).clip(
            max=3
        )

    calibration, truth = drawn(500)
    calibrated = Intervals(
        "m", record(sorted(classification_scores(calibration, truth).ravel().tolist())), classifier=True
    )
    prediction, truth = drawn(20_000)
    for coverage in (0.6, 0.8, 0.95):
        answer = calibrated.add(prediction, coverage)
        assert answer.prediction_set is not None
        assert answer.prediction_set.sum(axis=1).min() >= 1
        found = float(answer.prediction_set[np.arange(20_000), truth].mean())
        place = rank(500, coverage)
        low, high = stats.beta(place, 501 - place).ppf([1e-4, 1 - 1e-4])
        assert low - 0.01 < found < high + 0.01


@pytest.mark.parametrize("coverage", [0.0, 1.0, -0.5, 1.5, float("nan"), float("inf")])
def test_a_coverage_out_of_range_is_refused(coverage: float) -> None:
    with pytest.raises(InputError, match=r"above 0 and below 1") as refusal:
        Intervals("m", record([1.0]), classifier=False).check(coverage, monte_carlo=False)
    assert refusal.value.field == "interval"


def test_a_model_without_calibration_says_what_to_do() -> None:
    with pytest.raises(IntervalUnavailable, match=r"model 'm' .* without a calibration; train it with --cal"):
        Intervals("m", None, classifier=False).check(0.9, monte_carlo=False)


def test_a_mode_without_scores_is_refused() -> None:
    calibrated = Intervals("m", record([1.0, 2.0]), classifier=False)
    calibrated.check(0.5, monte_carlo=False)
    with pytest.raises(IntervalUnavailable, match=r"calibrated for deterministic requests only"):
        calibrated.check(0.5, monte_carlo=True)


@pytest.mark.parametrize("rows", [MOST_SCORES + 1, 2 * MOST_SCORES, 50_000, 1_234_567])
def test_thinned_scores_cover_no_less_and_hardly_more(rows: int) -> None:
    ranks = thinned_ranks(rows)
    assert ranks is not None
    assert len(ranks) <= MOST_SCORES + 1
    mode = ModeRecord(scores=(tuple(float(place) for place in ranks),), ranks=ranks)
    for coverage in (0.001, 0.5, 0.77, 0.9, 0.95, 0.999):
        excess = quantiles(mode, rows, coverage)[0] - rank(rows, coverage)
        assert 0 <= excess <= rows / 2000
    assert quantiles(mode, rows, 1 - 5 / rows)[0] == rank(rows, 1 - 5 / rows)


def test_few_scores_are_all_kept() -> None:
    assert thinned_ranks(MOST_SCORES) is None
