"""The options of a prediction: which are refused, and which are the same."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from dropserve_models.errors import InputError
from dropserve_models.prediction import MAX_PASSES, MAX_QUANTILES, Prediction
from support.engines import model_of
from support.onnx_models import Array, mlp

REGRESSION = mlp([6, 20, 20, 2], [0.1, 0.2, 0.5]).onnx()
X: Array = np.random.default_rng(0).normal(size=(7, 6)).astype(np.float32)


def arrays(prediction: Prediction) -> dict[str, np.ndarray]:
    values = {name: getattr(prediction, name) for name in Prediction.__slots__}
    return {name: value for name, value in values.items() if isinstance(value, np.ndarray)}


@pytest.mark.parametrize(
    ("field", "options", "message"),
    [
        ("passes", {"passes": 0}, "passes is 0; it must be from 1 to 1,000,000"),
        ("passes", {"passes": -3}, "from 1 to"),
        ("passes", {"passes": MAX_PASSES + 1}, "passes is 1000001"),
        ("passes", {"passes": 10.5}, "integer"),
        ("passes", {"passes": "100"}, "integer"),
        ("seed", {"passes": 10, "seed": -1}, "from 0 to 2"),
        ("seed", {"passes": 10, "seed": 2**64}, "from 0 to 2"),
        ("seed", {"passes": 10, "seed": 1.5}, "integer"),
        ("passes", {"seed": 1}, "need passes"),
        ("passes", {"quantiles": (0.5,)}, "need passes"),
        ("passes", {"return_samples": True}, "need passes"),
        ("passes", {"mean_tolerance": 0.0}, "need passes"),
        ("quantiles", {"passes": 10, "quantiles": (0.5, 1.1)}, "1.1"),
        ("quantiles", {"passes": 10, "quantiles": (-0.1,)}, "within"),
        ("quantiles", {"passes": 10, "quantiles": (float("nan"),)}, "within"),
        ("quantiles", {"passes": 10, "quantiles": 0.5}, "list"),
        ("quantiles", {"passes": 10, "quantiles": ("a",)}, "number"),
        ("quantiles", {"passes": 10, "quantiles": [0.5] * (MAX_QUANTILES + 1)}, "at most 64"),
        ("mean_tolerance", {"passes": 10, "mean_tolerance": "tight"}, "'tight'; it must be a number"),
        ("std_tolerance", {"passes": 10, "std_tolerance": 0}, "must be above 0"),
        ("masks", {"passes": 10, "masks": "sobol"}, "'stratified' or 'independent'"),
    ],
)
def test_options_out_of_range_are_named(field: str, options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        model_of(REGRESSION).predict(X, **options)
    assert caught.value.field == field
    assert "\n" not in str(caught.value)


def test_numbers_of_numpy_are_numbers() -> None:
    loaded = model_of(REGRESSION)
    plain = loaded.predict(X, passes=20, seed=2**63 + 1, quantiles=[0.25, 0.75])
    ours = loaded.predict(X, passes=np.int64(20), seed=np.uint64(2**63 + 1), quantiles=np.array([0.25, 0.75]))  # type: ignore[arg-type]
    for name, array in arrays(plain).items():
        np.testing.assert_array_equal(arrays(ours)[name], array)


def test_the_ends_of_the_seed_range_are_seeds() -> None:
    loaded = model_of(REGRESSION)
    low, high = (loaded.predict(X, passes=20, seed=seed, masks="independent").mean for seed in (0, 2**64 - 1))
    assert (low != high).any()
