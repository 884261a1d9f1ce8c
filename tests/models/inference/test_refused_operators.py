"""Graphs that the engine does not run: told why, and answered without error bars."""

from __future__ import annotations

import numpy as np
import pytest
from onnx import helper

from dropserve_models.errors import MonteCarloUnavailable
from dropserve_models.prediction import MonteCarloOptions
from support.engines import model_of, onnx_runtime
from support.onnx_models import constant, model, node
from support.operator_cases import HALF, UNITS, Case, int64, one

rng = np.random.default_rng(0)
w = constant("w", rng.normal(size=(UNITS, 3)))

REFUSED = {
    "doubles before the dropout": (
        Case([node("Cast", "features", "wide", to=11), node("Dropout", "wide half", "d3"),
              node("Cast", "d3", "narrow", to=1), node("Add", "narrow d", "prediction")]),
        "operation Dropout (Dropout_to_d3) after the first Dropout is not supported: its input 'wide'",
    ),
    "an operation it lacks": (one("Ceil"), "operation Ceil (Ceil_to_prediction) after the first Dropout"),
    "rank 3": (
        Case([node("Reshape", "d cube", "c"), node("Reshape", "c flat", "prediction")],
             [int64("cube", -1, 2, 2), int64("flat", -1, 4)]),
        "operation Reshape (Reshape_to_c)",
    ),
    "a mix of rows": (Case([node("Softmax", "d", "prediction", axis=0)]), "axis 0"),
    "a product of values": (
        Case([node("Transpose", "x", "t", perm=[1, 0]), node("MatMul", "d t", "s"),
              node("MatMul", "s d", "prediction")]),
        "operation Transpose (Transpose_to_t)",
    ),
    "a product with computed weights": (
        Case([node("ReduceMean", "features", "level", keepdims=0), node("Mul", "w level", "weights"),
              node("MatMul", "d weights", "prediction")], [w], 3),
        "'weights' must be a constant",
    ),
    "doubles": (
        Case([node("Cast", "d", "wide", to=11), node("Cast", "wide", "prediction", to=1)]), "casts to float32"
    ),
    "an average of rows": (
        Case([node("ReduceMean", "d", "m", axes=[0]), node("Add", "d m", "prediction")]),
        "operation ReduceMean",
    ),
    "a bias computed from the rows": (
        Case([node("MatMul", "features w", "computed"), node("Gemm", "d w computed", "prediction")], [w], 3),
        "bias is not a constant",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_refusals_name_the_operation_and_point_predictions_go_on(name: str) -> None:
    case, reason = REFUSED[name]
    data = case.data()
    loaded = model_of(data)
    assert loaded.monte_carlo_unavailable is not None
    assert reason in loaded.monte_carlo_unavailable
    assert "\n" not in loaded.monte_carlo_unavailable
    x = np.abs(rng.normal(size=(3, UNITS))).astype(np.float32)
    np.testing.assert_allclose(loaded.run(x).mean, onnx_runtime(data, x)[0].reshape(3, -1), rtol=1e-6)
    for _ in range(2):
        with pytest.raises(MonteCarloUnavailable, match="model 'model' can't answer with error bars"):
            loaded.run(x, MonteCarloOptions(10))
    with pytest.raises(MonteCarloUnavailable):
        loaded.prepare_monte_carlo()


def test_a_mask_that_is_read_is_refused_and_one_that_is_not_is_no_matter() -> None:
    listed = [
        helper.make_node("Dropout", ["features", "half"], ["d", "mask"]),
        node("Neg", "d", "prediction"),
    ]
    assert model_of(model(listed, [HALF], UNITS, UNITS)).monte_carlo_unavailable is None
    read = [*listed[:1], node("Where", "mask d half", "prediction")]
    assert model_of(model(read, [HALF], UNITS, UNITS)).monte_carlo_unavailable is not None


def test_an_engine_that_computes_something_else_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever goes wrong in reading a graph, the comparison with ONNX Runtime is the last word."""
    from dropserve_models.inference.engine import Engine

    loaded = model_of(Case([node("Relu", "d", "prediction")]).data())
    right = Engine.evaluate
    monkeypatch.setattr(Engine, "evaluate", lambda self, x: [1.01 * value for value in right(self, x)])
    assert loaded.monte_carlo_unavailable is None, "not known before torch is there"
    with pytest.raises(MonteCarloUnavailable, match=r"differs from ONNX Runtime by 0\.01"):
        loaded.prepare_monte_carlo()
    assert "differs" in str(loaded.monte_carlo_unavailable)
    monkeypatch.undo()
    with pytest.raises(MonteCarloUnavailable, match="differs"):
        loaded.run(np.zeros((1, UNITS), np.float32), MonteCarloOptions(10))
