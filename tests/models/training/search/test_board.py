from __future__ import annotations

import math

import numpy as np
import pytest

from dropserve_models.training.search.board import standing


def test_the_difficulty_of_folds_is_taken_out() -> None:
    own, by_fold = np.array([1.0, 2.0, 3.0, 2.5]), np.array([-5.0, 0.0, 5.0, 1.0])
    scores = own[:, None] + by_fold
    scores[2, :2] = math.nan  # tried on the easy folds alone
    scores[0, 2:] = math.nan  # tried on the hard ones alone
    found = standing(scores)
    assert found.means - found.means[1] == pytest.approx(own - 2.0, abs=1e-6)
    assert found.variances == pytest.approx(0.0, abs=1e-9)


def test_variances_fall_with_the_number_of_folds() -> None:
    random = np.random.default_rng(0)
    scores = random.normal(size=(200, 10))
    scores[100:, 2:] = math.nan
    found = standing(scores)
    assert found.variances[0] == pytest.approx(0.1, rel=0.1)
    assert found.variances[100] == pytest.approx(5 * found.variances[0])


def test_a_hopeless_setting_does_not_drown_the_others() -> None:
    scores = np.array([[-1.0, -1.1], [-1.2, -1.3], [-1e6, -2.0], [-math.inf, math.nan], [-1.4, -1.5]])
    means = standing(scores).means
    assert means[0] > means[1] > means[4] > max(means[2], means[3])
    assert means[0] - min(means) < 5.0


def test_a_single_setting_on_a_single_fold() -> None:
    found = standing(np.array([[3.0]]))
    assert found.means == pytest.approx([3.0])
    assert np.isfinite(found.variances).all()


def test_two_settings_are_told_apart() -> None:
    means = standing(np.array([[-1.0, -2.0], [-1.5, -2.5]])).means
    assert means[0] - means[1] == pytest.approx(0.5)
