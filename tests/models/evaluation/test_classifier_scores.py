"""Scores of classifiers and of orders, against scikit-learn and brute force."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn import metrics as reference

from dropserve_models.evaluation.metrics import (
    auc,
    auroc,
    ause,
    brier,
    correct,
    expected_calibration_error,
    log_probability,
    placements,
    rejection_curve,
    reliability,
)

RANDOM = np.random.default_rng(0)
THREE = RANDOM.dirichlet(np.ones(3), 200)
TWO = RANDOM.dirichlet(np.ones(2), 200)
OF_THREE = RANDOM.integers(0, 3, 200)
OF_TWO = (RANDOM.uniform(size=200) < TWO[:, 1]).astype(int)


@pytest.mark.parametrize(("classes", "probabilities"), [(OF_TWO, TWO), (OF_THREE, THREE)])
def test_means_of_the_rows_scores(classes: np.ndarray, probabilities: np.ndarray) -> None:
    labels = list(range(probabilities.shape[1]))
    assert correct(classes, probabilities).mean() == reference.accuracy_score(
        classes, probabilities.argmax(axis=1)
    )
    assert -log_probability(classes, probabilities).mean() == pytest.approx(
        reference.log_loss(classes, probabilities, labels=labels)
    )
    given = probabilities if len(labels) > 2 else probabilities[:, 1]
    assert brier(classes, probabilities).mean() == pytest.approx(
        reference.brier_score_loss(classes, given, labels=labels)
    )
    assert auc(classes, probabilities) == pytest.approx(
        reference.roc_auc_score(classes, given, multi_class="ovr", labels=labels)
    )


def test_auc_where_a_class_does_not_occur() -> None:
    classes = np.where(OF_THREE == 1, 0, OF_THREE)
    areas = [reference.roc_auc_score(classes == number, THREE[:, number]) for number in (0, 2)]
    assert auc(classes, THREE) == pytest.approx(np.mean(areas))
    assert auc(np.zeros(200, int), THREE) is None
    assert auc(np.ones(200, int), TWO) is None


def test_a_probability_of_zero_costs_much_and_not_infinity() -> None:
    assert -88 < log_probability([1], np.array([[1, 0]], np.float32))[0] < -87


def test_ties_count_half() -> None:
    positive = RANDOM.uniform(size=300) < 0.3
    score = RANDOM.integers(0, 5, 300) + positive
    assert auroc(positive, score) == pytest.approx(reference.roc_auc_score(positive, score))
    assert auroc([True, False], [1.0, 1.0]) == 0.5
    assert auroc([True, True], [1.0, 2.0]) is None


def test_the_spread_of_an_auroc_s_placements_is_delong_s_variance() -> None:
    positive = RANDOM.uniform(size=80) < 0.4
    score = RANDOM.normal(size=80) + positive
    up, down = score[positive], score[~positive]
    wins = (up[:, None] > down) + 0.5 * (up[:, None] == down)
    of_up, of_down = wins.mean(axis=1).var() / len(up), wins.mean(axis=0).var() / len(down)
    found = placements(positive, score)
    assert found is not None
    assert found.mean() == pytest.approx(wins.mean())
    assert found.var() / len(found) == pytest.approx(of_up + of_down)


def test_reliability_by_brute_force() -> None:
    found = reliability(OF_THREE, THREE, bins=10)
    confidence, right = THREE.max(axis=1), THREE.argmax(axis=1) == OF_THREE
    gap = 0.0
    for number, (low, high) in enumerate(zip(found.edges[:-1], found.edges[1:], strict=True)):
        held = (confidence > low) & (confidence <= high)
        assert found.counts[number] == held.sum()
        if held.any():
            assert found.confidence[number] == pytest.approx(confidence[held].mean())
            assert found.accuracy[number] == pytest.approx(right[held].mean())
            gap += held.mean() * abs(confidence[held].mean() - right[held].mean())
        else:
            assert np.isnan(found.confidence[number])
            assert np.isnan(found.accuracy[number])
    assert found.counts.sum() == 200
    assert expected_calibration_error(OF_THREE, THREE, bins=10) == pytest.approx(gap)


def test_calibration_errors_that_are_known() -> None:
    certain = np.tile([1.0, 0.0], (10, 1))
    assert expected_calibration_error(np.zeros(10), certain) == 0.0
    assert expected_calibration_error([0] * 7 + [1] * 3, certain) == pytest.approx(0.3)
    # Right 4 times of 5 at a confidence of .8, on the edge between two of 15 bins.
    assert expected_calibration_error([0, 0, 0, 0, 1], np.tile([0.8, 0.2], (5, 1))) == pytest.approx(0.0)


def test_rejection_by_brute_force() -> None:
    error, uncertainty = RANDOM.uniform(size=50), RANDOM.normal(size=50)
    curve = rejection_curve(error, uncertainty)
    order = np.argsort(uncertainty)
    for place in range(50):
        assert curve.kept[place] == (place + 1) / 50
        assert curve.error[place] == pytest.approx(error[order][: place + 1].mean())
        assert curve.best[place] == pytest.approx(np.sort(error)[: place + 1].mean())
    expected = np.mean(curve.error - curve.best) / error.mean()
    assert ause(error, uncertainty) == pytest.approx(expected)


def test_orders_that_know_everything_and_nothing() -> None:
    error = RANDOM.uniform(size=50)
    assert ause(error, np.exp(error)) == pytest.approx(0.0)
    assert ause(np.zeros(5), np.arange(5)) is None
    nothing = rejection_curve(error, np.zeros(50))
    np.testing.assert_allclose(nothing.error, error.mean())
    worst = ause(error, -error)
    assert worst is not None
    assert worst > (ause(error, np.zeros(50)) or 0.0) > 0.0
