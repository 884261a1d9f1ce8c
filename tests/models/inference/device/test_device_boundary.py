"""The prefix's values reach the device, whichever way."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from dropserve_models.inference.deterministic import Session
from dropserve_models.inference.device import boundary
from support.devices import CPU
from support.engines import Array
from support.onnx_models import constant, model, node

WEIGHT = np.random.default_rng(1).normal(size=(5, 5)).astype(np.float32)
FEATURES: Array = np.random.default_rng(0).normal(size=(12, 5)).astype(np.float32)


@pytest.fixture(scope="module")
def prefix() -> Session:
    nodes = [node("MatMul", "features w", "a"), node("Relu", "a", "b")]
    return Session(model(nodes, [constant("w", WEIGHT)], 5, {"a": 5, "b": 5}), "cpu", 1)


@pytest.mark.parametrize("rows", [12, 4])
def test_values_of_the_prefix_and_the_features_themselves(prefix: Session, rows: int) -> None:
    values = boundary.boundary_values(("b", "features", "a"), prefix, FEATURES, rows, CPU)
    product = (FEATURES @ WEIGHT).T
    assert list(values) == ["b", "features", "a"]
    for name, expected in {"a": product, "b": np.maximum(product, 0.0), "features": FEATURES.T}.items():
        assert values[name].shape == (5, 1, 12)
        assert values[name].is_contiguous()
        np.testing.assert_allclose(values[name][:, 0].numpy(), expected, rtol=1e-5, atol=1e-6)


def test_without_a_prefix() -> None:
    (value,) = boundary.boundary_values(("features",), None, FEATURES, 12, CPU).values()
    np.testing.assert_array_equal(value[:, 0].numpy(), FEATURES.T)


def test_values_outlive_what_the_session_does_next(prefix: Session) -> None:
    values = boundary.boundary_values(("a",), prefix, FEATURES, 12, CPU)["a"].clone()
    first = boundary.boundary_values(("a",), prefix, FEATURES, 12, CPU)["a"]
    for _ in range(20):
        boundary.boundary_values(("a",), prefix, FEATURES * 3, 12, CPU)
    assert torch.equal(first, values)


def test_memory_is_shared_where_the_runtime_offers_it(prefix: Session) -> None:
    (value,) = prefix.run_on("cpu", FEATURES, ["a"])
    assert boundary._shared(value, CPU).data_ptr() == value.data_ptr()


def test_where_it_does_not_values_are_copied(prefix: Session) -> None:
    class Old:
        def __init__(self, value: Any) -> None:
            self.numpy = value.numpy

    (value,) = prefix.run_on("cpu", FEATURES, ["a"])
    np.testing.assert_allclose(boundary._shared(Old(value), CPU).numpy(), FEATURES @ WEIGHT, rtol=1e-5)


def test_a_prefix_on_the_cpu_is_copied_to_another_device(prefix: Session) -> None:
    values = boundary.boundary_values(("a", "features"), prefix, FEATURES, 4, torch.device("meta"))
    assert {value.device.type for value in values.values()} == {"meta"}
