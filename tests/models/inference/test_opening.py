"""The prefix in torch: what ONNX Runtime computes, where torch knows all operations."""

from __future__ import annotations

import numpy as np
import pytest

from dropserve_models.inference.opening import Opening
from support.engines import Array, blueprint_of, model_of
from support.onnx_models import constant, mlp, model, node

ROWS: Array = np.random.default_rng(0).normal(size=(37, 9)).astype(np.float32)


def standardised(*, rare: bool) -> bytes:
    """A scaled input, a layer, an inactive Dropout and then one that drops."""
    rng = np.random.default_rng(1)
    nodes = [
        node("Sub", "features centre", "s1"),
        node("Div", "s1 scale", "s2"),
        node("Gemm", "s2 first shift", "g1", transB=1),
        node("Softsign" if not rare else "Cos", "g1", "a1"),
        node("Dropout", "a1 none", "d1"),
        node("Dropout", "d1 half", "d2"),
        node("MatMul", "d2 last", "prediction"),
    ]
    constants = [
        constant("centre", rng.normal(size=9)), constant("scale", rng.uniform(1, 2, size=9)),
        constant("first", rng.normal(size=(20, 9))), constant("shift", rng.normal(size=20)),
        constant("none", 0.0), constant("half", 0.5), constant("last", rng.normal(size=(20, 3))),
    ]  # fmt: skip
    return model(nodes, constants, 9, 3)


@pytest.mark.parametrize(
    "data",
    [standardised(rare=False), mlp([9, 30, 20, 3], [0.0, 0.0, 0.5], last="Softmax").onnx(gemm=True)],
    ids=["standardised", "two layers"],
)
def test_it_is_the_prefix_of_onnx_runtime(data: bytes) -> None:
    blueprint = blueprint_of(data)
    assert blueprint.opening is not None
    assert blueprint.prefix is not None
    before = ROWS.copy()
    found = Opening(blueprint.opening).values(ROWS)
    assert tuple(found) == blueprint.prefix.outputs
    for value, expected in zip(found.values(), blueprint.prefix.run(ROWS), strict=True):
        np.testing.assert_allclose(value[:, 0].numpy().T, expected, rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(ROWS, before)


def test_a_prefix_that_torch_does_not_know_is_left_to_onnx_runtime() -> None:
    data = standardised(rare=True)
    assert blueprint_of(data).opening is None
    found = model_of(data).predict(ROWS, passes=20, seed=1)
    point = model_of(data).predict(ROWS)
    assert found.std is not None
    assert (np.abs(found.mean - point.mean) < 6 * found.std / np.sqrt(20) + 1e-4).all()


def test_without_layers_before_the_first_dropout_there_is_none() -> None:
    blueprint = blueprint_of(mlp([9, 20, 3], [0.2, 0.5]).onnx())
    assert blueprint.prefix is None
    assert blueprint.opening is None
