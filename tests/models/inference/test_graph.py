"""Cutting a graph at its first Dropout: rates, boundaries, constants, and what is refused."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from dropserve_models.errors import ArtifactError
from dropserve_models.inference.graph import Split, split
from dropserve_models.prediction import MonteCarloOptions
from support.engines import blueprint_of, engine_of, model_of, onnx_runtime
from support.onnx_models import Array, constant, mlp, model, node

X: Array = np.random.default_rng(0).normal(size=(5, 4)).astype(np.float32)
SQUARE = np.random.default_rng(1).normal(size=(4, 4))
HALF = constant("half", 0.5)


def cut(data: bytes) -> Split:
    return split(onnx.load_from_string(data))


def one_dropout(dropout: onnx.NodeProto, opset: int, *initializers: onnx.TensorProto) -> bytes:
    """features -> dropout -> matmul -> prediction."""
    nodes = [dropout, node("MatMul", f"{dropout.output[0]} w", "prediction")]
    return model(nodes, [constant("w", SQUARE), *initializers], 4, 4, opset)


@pytest.mark.parametrize("opset", [7, 10, 12, 13, 17, 21, 22])
def test_rate_by_the_opsets_own_means(opset: int) -> None:
    if opset < 12:
        data = one_dropout(node("Dropout", "features", "d", ratio=0.2), opset)
    else:
        data = one_dropout(node("Dropout", "features p", "d"), opset, constant("p", 0.2))
    parts = cut(data)
    assert parts.rates == {"d": 0.2}, "0.2, not its float32 neighbour 0.20000000298"
    assert engine_of(data).program.sites[0].rate == 0.2
    np.testing.assert_allclose(engine_of(data).evaluate(X)[0], onnx_runtime(data, X)[0], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("opset", [10, 17])
def test_default_rate_is_one_half(opset: int) -> None:
    assert cut(one_dropout(node("Dropout", "features", "d"), opset)).rates == {"d": 0.5}


def test_rate_left_out_beside_a_training_mode() -> None:
    training = constant("training", False, np.bool_)
    assert cut(one_dropout(node("Dropout", "features - training", "d"), 17, training)).rates == {"d": 0.5}


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.float16])
def test_rate_of_another_width(dtype: type) -> None:
    data = one_dropout(node("Dropout", "features p", "d"), 17, constant("p", 0.25, dtype))
    assert cut(data).rates == {"d": 0.25}


@pytest.mark.parametrize("rate", [-0.1, 1.0, 1.5, float("nan"), 1.0 - 1e-12])
def test_rates_outside_zero_to_one_are_refused(rate: float) -> None:
    data = one_dropout(node("Dropout", "features p", "d"), 17, constant("p", rate, np.float64))
    with pytest.raises(ArtifactError, match=r"Dropout_to_.*at least 0 and less than 1"):
        cut(data)


def test_rate_of_zero_is_no_dropout() -> None:
    data = one_dropout(node("Dropout", "features p", "d"), 17, constant("p", 0.0))
    assert cut(data).rates == {}
    assert cut(data).suffix == ()
    loaded = model_of(data)
    assert loaded.info.drop_rates == ()
    assert "no Dropout" in str(loaded.monte_carlo_unavailable)


def test_training_mode_is_refused() -> None:
    training = constant("training", True, np.bool_)
    data = one_dropout(node("Dropout", "features half training", "d"), 17, HALF, training)
    with pytest.raises(ArtifactError, match=r"Dropout_to_.*training mode.*eval mode"):
        cut(data)


def test_training_mode_that_the_graph_computes_is_refused() -> None:
    nodes = [
        node("ReduceSum", "features", "total", keepdims=0),
        node("Greater", "total zero", "training"),
        node("Dropout", "features half training", "prediction"),
    ]
    with pytest.raises(ArtifactError, match="training mode"):
        cut(model(nodes, [HALF, constant("zero", 0.0)], 4, 4))


def test_rate_that_the_graph_computes_is_refused() -> None:
    nodes = [
        node("ReduceMean", "features", "mean", keepdims=0),
        node("Sigmoid", "mean", "rate"),
        node("Dropout", "features rate", "prediction"),
    ]
    with pytest.raises(ArtifactError, match=r"Dropout_to_.*ratio is computed by the graph.*constant"):
        cut(model(nodes, [], 4, 4))


def test_constants_by_nodes_and_by_arithmetic_are_folded() -> None:
    """Weights behind Constant, Identity, Transpose and a product of constants; the rate a node too."""
    nodes = [
        helper.make_node("Constant", [], ["raw"], value=constant("", SQUARE)),
        node("Transpose", "raw", "turned", perm=[1, 0]),
        node("Identity", "turned", "same"),
        node("Mul", "same two", "w"),
        helper.make_node("Constant", [], ["p"], value=constant("", 0.2)),
        node("Dropout", "features p", "d"),
        node("MatMul", "d w", "prediction"),
    ]
    data = model(nodes, [constant("two", 2.0)], 4, 4)
    parts = cut(data)
    assert parts.rates == {"d": 0.2}
    np.testing.assert_allclose(
        parts.constants["w"].astype(np.float32), (2.0 * SQUARE.T).astype(np.float32), rtol=1e-6
    )
    np.testing.assert_allclose(engine_of(data).evaluate(X)[0], onnx_runtime(data, X)[0], rtol=1e-5, atol=1e-6)


def test_everything_before_the_first_dropout_is_prefix_whatever_it_is() -> None:
    """Operations the engine lacks, and one whose input has three dimensions, all before the dropout."""
    nodes = [
        node("Reshape", "features cube", "cubed"),
        node("ReduceMax", "cubed", "most", axes=[2], keepdims=0),
        node("TopK", "features one", "top where", axis=1),
        node("Concat", "most top", "x", axis=1),
        node("Dropout", "x half", "d"),
        node("MatMul", "d w", "prediction"),
    ]
    initializers = [
        constant("cube", [-1, 2, 2], np.int64), constant("one", [1], np.int64), HALF,
        constant("w", [[1.0], [2.0], [3.0]]),
    ]  # fmt: skip
    data = model(nodes, initializers, 4, 1)
    parts = cut(data)
    assert parts.boundary == ("x",)
    assert [n.op_type for n in parts.suffix] == ["Dropout", "MatMul"]
    x = np.hstack([X.reshape(5, 2, 2).max(axis=2), X.max(axis=1, keepdims=True)])
    mask = np.array([[2.0, 0.0, 2.0]], np.float32)
    expected = (x * mask) @ np.array([[1.0], [2.0], [3.0]])
    np.testing.assert_allclose(engine_of(data).passes(X, [mask])[0][0], expected, rtol=1e-5)


def test_residual_connections_cross_the_cut() -> None:
    """A branch that no dropout reaches is computed once, and added in every pass."""
    nodes = [
        node("MatMul", "features w", "hidden"),
        node("Relu", "hidden", "r"),
        node("Dropout", "r half", "d"),
        node("MatMul", "d w", "branch"),
        node("Add", "branch features", "sum"),
        node("Add", "sum r", "prediction"),
    ]
    data = model(nodes, [constant("w", SQUARE), HALF], 4, 4)
    parts = cut(data)
    assert set(parts.boundary) == {"r", "features"}
    mask = np.array([[2.0, 0.0, 0.0, 2.0], [0.0, 2.0, 2.0, 2.0]], np.float32)
    r = np.maximum(X @ SQUARE, 0.0)
    expected = (r * mask[:, None, :]) @ SQUARE + X + r
    np.testing.assert_allclose(engine_of(data).passes(X, [mask])[0], expected, rtol=1e-4, atol=1e-5)


def test_dropout_on_a_branch_that_no_output_reads() -> None:
    nodes = [node("Dropout", "features half", "d"), node("MatMul", "features w", "prediction")]
    loaded = model_of(model(nodes, [constant("w", SQUARE), HALF], 4, 4))
    assert "no output depends on a Dropout" in str(loaded.monte_carlo_unavailable)


def test_one_of_two_outputs_is_deterministic() -> None:
    """The noise head branches off before the dropout: the same in every pass."""
    nodes = [
        node("MatMul", "features w", "hidden"),
        node("Dropout", "hidden half", "d"),
        node("MatMul", "d first", "mean"),
        node("MatMul", "hidden first", "log_variance"),
        node("Exp", "log_variance", "noise_variance"),
    ]
    first = 0.1 * SQUARE[:, :1]
    initializers = [constant("w", SQUARE), constant("first", first), HALF]
    loaded = model_of(model(nodes, initializers, 4, {"mean": 1, "noise_variance": 1}))
    assert loaded.info.predicts_noise
    answer = loaded.run(X, MonteCarloOptions(30, 1))
    noise = np.exp(X @ SQUARE @ first)
    assert answer.aleatoric_variance is not None
    np.testing.assert_allclose(answer.aleatoric_variance, noise, rtol=1e-4)
    plain = loaded.run(X)
    assert plain.aleatoric_variance is not None
    np.testing.assert_allclose(plain.aleatoric_variance, noise, rtol=1e-4)
    assert answer.predictive_variance is not None
    assert answer.variance is not None
    np.testing.assert_allclose(answer.predictive_variance, answer.variance + answer.aleatoric_variance)


def test_initializers_that_are_also_inputs() -> None:
    """Before IR version 4 every initializer was an input too; exporters kept doing so for years."""
    made = onnx.load_from_string(mlp([4, 6, 3], [0.0, 0.3]).onnx())
    for tensor in made.graph.initializer:
        made.graph.input.append(
            helper.make_tensor_value_info(tensor.name, tensor.data_type, list(tensor.dims))
        )
    data = made.SerializeToString()
    assert blueprint_of(data).monte_carlo_unavailable is None
    np.testing.assert_allclose(engine_of(data).evaluate(X)[0], onnx_runtime(data, X)[0], rtol=1e-5, atol=1e-6)


def test_an_output_left_out_does_not_spread_randomness() -> None:
    """The empty name of an output that is left out is nobody's input."""
    nodes = [
        helper.make_node("Dropout", ["features", "half"], ["d", ""]),
        node("Clip", "features - top", "clipped"),
        node("TopK", "clipped one", "kept where", axis=1),
        node("Concat", "d kept", "prediction", axis=1),
    ]
    data = model(nodes, [HALF, constant("top", 1.0), constant("one", [1], np.int64)], 4, 5)
    assert blueprint_of(data).monte_carlo_unavailable is None
    assert [n.op_type for n in cut(data).suffix] == ["Dropout", "Concat"]


def test_a_dropout_that_only_a_subgraph_reads_is_not_ignored() -> None:
    """A branch of an If reads the dropped value without naming it among the node's inputs."""

    def branch(name: str, source: str) -> onnx.GraphProto:
        output = helper.make_tensor_value_info(name, TensorProto.FLOAT, None)
        return helper.make_graph([helper.make_node("Identity", [source], [name])], name, [], [output])

    nodes = [
        node("Dropout", "features half", "d"),
        node("ReduceSum", "features", "total", keepdims=0),
        node("Greater", "total zero", "positive"),
        node("If", "positive", "chosen", then_branch=branch("yes", "d"), else_branch=branch("no", "d")),
        node("Dropout", "chosen half", "again"),
        node("MatMul", "again w", "prediction"),
    ]
    data = model(nodes, [HALF, constant("zero", 0.0), constant("w", SQUARE)], 4, 4)
    assert "If" in str(model_of(data).monte_carlo_unavailable)


def test_the_dropouts_inside_a_local_function_are_not_ignored() -> None:
    made = onnx.load_from_string(mlp([4, 6, 3], [0.0, 0.3]).onnx())
    body = [node("Dropout", "x", "y")]
    function = helper.make_function("local", "Hidden", ["x"], ["y"], body, [helper.make_opsetid("", 17)])
    made.functions.append(function)
    made.opset_import.append(helper.make_opsetid("local", 1))
    relu = next(number for number, n in enumerate(made.graph.node) if n.op_type == "Relu")
    made.graph.node[relu].output[0] = "before"
    made.graph.node.insert(relu + 1, helper.make_node("Hidden", ["before"], ["hidden_0"], domain="local"))
    loaded = model_of(made.SerializeToString())
    if loaded.monte_carlo_unavailable is None:
        assert loaded.info.drop_rates == (0.5, 0.3)
    else:
        assert "Hidden" in loaded.monte_carlo_unavailable
