from __future__ import annotations

import numpy as np
import pytest

from dropserve_models.training.standardise import Scaling


def test_columns_get_mean_0_and_standard_deviation_1() -> None:
    values = np.array([[1, 10], [2, 30], [3, 20], [6, 40]], np.float32)
    scaling = Scaling.of(values)
    np.testing.assert_allclose(scaling.mean, [3, 25])
    np.testing.assert_allclose(scaling.std, np.sqrt([3.5, 125]), rtol=1e-7)
    found = scaling.apply(values)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found.mean(axis=0), 0, atol=1e-7)
    np.testing.assert_allclose(found.std(axis=0), 1, rtol=1e-6)


def test_a_constant_column_is_scaled_by_1() -> None:
    # The mean of three times 0.1 is not exactly 0.1: the range, not the deviation, tells constants.
    scaling = Scaling.of(np.array([[0.1, 1], [0.1, 2], [0.1, 3]]))
    assert scaling.constant.tolist() == [True, False]
    assert scaling.std[0] == 1
    np.testing.assert_allclose(scaling.apply(np.array([[0.1, 2]])), 0, atol=1e-7)


def test_a_spread_below_float32_is_constant() -> None:
    scaling = Scaling.of(np.array([[0.0], [1e-44]], np.float32))
    assert scaling.constant.all()
    assert np.isfinite(scaling.apply(np.array([[1e30]], np.float32))).all()


@pytest.mark.parametrize("centre", [1e6, -1e7])
def test_columns_far_from_zero_keep_their_digits(centre: float) -> None:
    values = (centre + np.random.default_rng(0).normal(size=(1000, 1))).astype(np.float32)
    exact = values.astype(np.float64)
    expected = (exact - exact.mean()) / exact.std()
    found = Scaling.of(values).apply(values)
    # What is lost is the rounding of the mean to float32, the same for all rows.
    np.testing.assert_allclose(found - found.mean(), expected, atol=2e-6)


def test_large_columns_do_not_overflow() -> None:
    values = np.array([[-3e38], [3e38]], np.float64)
    assert np.isfinite(Scaling.of(values).apply(values)).all()
