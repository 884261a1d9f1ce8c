"""Every operation the engine runs, against ONNX Runtime: dropout off, and pass by pass with given masks."""

from __future__ import annotations

import numpy as np
import onnx
import pytest

from dropserve_models.inference.onnx_operators import ELEMENTWISE
from dropserve_models.prediction import MonteCarloOptions
from support.engines import Array, engine_of, model_of, onnx_runtime
from support.onnx_models import constant, model, node
from support.operator_cases import HALF, UNITS, Case, int64, one

rng = np.random.default_rng(0)
WEIGHT = rng.normal(size=(UNITS, 3))
ROW = rng.normal(size=UNITS)


def above_zero(op: str, inputs: str = "x", *constants: onnx.TensorProto) -> Case:
    return Case([node(op, inputs, "prediction")], list(constants), positive=True)


row, line, scalar, single = (
    constant("c", ROW), constant("c", ROW[None, :]), constant("c", 0.7), constant("c", [0.7])
)  # fmt: skip

ELEMENTWISE_CASES = {
    "Abs": [one("Abs")],
    "Add": [one("Add", "d c", row), one("Add", "c d", line), one("Add", "d c", scalar), one("Add", "d d")],
    "Celu": [one("Celu"), one("Celu", alpha=0.3)],
    "Div": [one("Div", "d c", row), above_zero("Div", "c x", row), above_zero("Div", "d x")],
    "Elu": [one("Elu"), one("Elu", alpha=0.3)],
    "Erf": [one("Erf")],
    "Exp": [one("Exp")],
    "HardSigmoid": [one("HardSigmoid"), one("HardSigmoid", alpha=0.5, beta=0.1)],
    "HardSwish": [one("HardSwish")],
    "LeakyRelu": [one("LeakyRelu"), one("LeakyRelu", alpha=0.3)],
    "Log": [above_zero("Log")],
    "Max": [one("Max", "d c", row), one("Max", "c d x", scalar), one("Max", "d")],
    "Min": [one("Min", "d c", row), one("Min", "c d x", scalar), one("Min", "d")],
    "Mish": [one("Mish", opset=18)],
    "Mul": [one("Mul", "d c", row), one("Mul", "c d", single), one("Mul", "d x")],
    "Neg": [one("Neg")],
    "Pow": [
        one("Pow", "d c", constant("c", 2.0)), one("Pow", "d c", constant("c", [3.0])),
        above_zero("Pow", "x c", row), above_zero("Pow", "c x", constant("c", np.abs(ROW))),
    ],
    "PRelu": [one("PRelu", "d c", row), one("PRelu", "d c", single)],
    "Reciprocal": [above_zero("Reciprocal")],
    "Relu": [one("Relu")],
    "Selu": [one("Selu"), one("Selu", alpha=1.1, gamma=0.9)],
    "Sigmoid": [one("Sigmoid")],
    "Softplus": [one("Softplus")],
    "Softsign": [one("Softsign")],
    "Sqrt": [above_zero("Sqrt")],
    "Sub": [one("Sub", "d c", row), one("Sub", "c d", row), one("Sub", "d x")],
    "Sum": [one("Sum", "d c x", row), one("Sum", "d")],
    "Swish": [one("Swish", opset=24), one("Swish", opset=24, alpha=1.7)],
    "Tanh": [one("Tanh")],
    "ThresholdedRelu": [one("ThresholdedRelu"), one("ThresholdedRelu", alpha=0.2)],
}  # fmt: skip


w, wt, b = constant("w", WEIGHT), constant("w", WEIGHT.T), constant("b", ROW[:3])
batch_constants = [
    constant("scale", ROW), constant("shift", ROW[::-1]),
    constant("centre", ROW * 0.5), constant("var", ROW**2 + 0.1),
]  # fmt: skip
BATCH = "scale shift centre var"

READER_CASES = {
    "BatchNormalization": Case([node("BatchNormalization", f"d {BATCH}", "prediction")], batch_constants),
    "BatchNormalization, epsilon": Case(
        [node("BatchNormalization", f"d {BATCH}", "prediction", epsilon=0.3)], batch_constants
    ),
    "Cast": one("Cast", to=1),
    "Clip, both": one("Clip", "d low high", constant("low", -0.2), constant("high", 0.6)),
    "Clip, min": one("Clip", "d low", constant("low", -0.2)),
    "Clip, max": one("Clip", "d - high", constant("high", 0.6)),
    "Clip, neither": one("Clip"),
    "Clip, attributes": one("Clip", opset=7, min=-0.3, max=0.5),
    "Concat": Case([node("Concat", "d x features", "prediction", axis=1)], width=12),
    "Dropout, off": one("Dropout", "d zero", constant("zero", 0.0)),
    "Flatten": one("Flatten"),
    "Gather": Case([node("Gather", "d i", "prediction", axis=1)], [int64("i", 3, 0, -2)], 3),
    "Gelu": one("Gelu", opset=20),
    "Gelu, tanh": one("Gelu", opset=20, approximate="tanh"),
    "Gemm": Case([node("Gemm", "d w b", "prediction")], [w, b], 3),
    "Gemm, transB": Case([node("Gemm", "d w b", "prediction", transB=1)], [wt, b], 3),
    "Gemm, alpha, beta": Case([node("Gemm", "d w b", "prediction", alpha=0.5, beta=-2.0)], [w, b], 3),
    "Gemm, no bias": Case([node("Gemm", "d w", "prediction", transB=1, alpha=1.5)], [wt], 3),
    "Gemm, one bias for all": Case([node("Gemm", "d w b", "prediction")], [w, constant("b", 0.3)], 3),
    "Gemm, bias [1, units]": Case([node("Gemm", "d w b", "prediction")], [w, constant("b", [ROW[:3]])], 3),
    "Identity": one("Identity"),
    "LayerNormalization": one("LayerNormalization", "d scale shift", *batch_constants[:2]),
    "LayerNormalization, no bias": one(
        "LayerNormalization", "d scale", batch_constants[0], axis=1, epsilon=0.1
    ),
    "LogSoftmax": one("LogSoftmax", axis=1),
    "MatMul": Case([node("MatMul", "d w", "prediction")], [w], 3),
    "MatMul, Add": Case([node("MatMul", "d w", "m"), node("Add", "b m", "prediction")], [w, b], 3),
    "MatMul, Add, both read": Case(
        [node("MatMul", "d w", "m"), node("Add", "b m", "a"), node("Mul", "a m", "prediction")], [w, b], 3
    ),
    "MatMul, Add of a scalar": Case(
        [node("MatMul", "d w", "m"), node("Add", "m half", "prediction")], [w], 3
    ),
    "MatMul to one unit, Add of a row": Case(
        [node("MatMul", "d w", "m"), node("Add", "m b", "prediction")], [constant("w", WEIGHT[:, :1]), b], 3
    ),
    "Slice": Case(
        [node("Slice", "d s e a", "prediction")], [int64("s", 1), int64("e", 2**31), int64("a", 1)], 3
    ),
    "Slice, from the end, every second": Case(
        [node("Slice", "d s e a t", "prediction")],
        [int64("s", -4), int64("e", -1), int64("a", -1), int64("t", 2)], 2,
    ),
    "Slice, attributes": Case(
        [node("Slice", "d", "prediction", starts=[1], ends=[3], axes=[1])], width=2, opset=7
    ),
    "Softmax": one("Softmax"),
    "Softmax, old": one("Softmax", opset=11, axis=1),
    "Split, sizes": Case(
        [node("Split", "d sizes", "p q", axis=1), node("Concat", "q p", "prediction", axis=-1)],
        [int64("sizes", 1, 3)],
    ),
    "Split, halves": Case(
        [node("Split", "d", "p q", axis=-1), node("Mul", "p q", "prediction")], width=2
    ),
    "Split, attribute": Case(
        [node("Split", "d", "p q", axis=1, split=[3, 1]), node("Mul", "p q", "prediction")], width=3, opset=11
    ),
    "one unit beside many": Case([node("MatMul", "d w", "m"), node("Mul", "d m", "prediction")],
                                 [constant("w", WEIGHT[:, :1])]),
}  # fmt: skip


def same_as_onnx_runtime(case: Case) -> None:
    data = case.data()
    x = rng.normal(size=(6, UNITS)).astype(np.float32)
    if case.positive:
        x = np.abs(x)
    masks = np.array([[2.0] * UNITS, [0.0, 2.0, 2.0, 0.0], [2.0, 0.0, 2.0, 2.0], [0.0] * UNITS], np.float32)
    engine = engine_of(data)

    def check(ours: Array, theirs: Array) -> None:
        assert ours.shape == theirs.shape
        assert np.isfinite(theirs).all()
        np.testing.assert_allclose(ours, theirs, rtol=2e-5, atol=2e-6)

    check(engine.evaluate(x)[0], onnx_runtime(data, x)[0])
    (passes,) = engine.passes(x, [masks])
    engine.prepare_small(x)
    assert engine.small is not None
    for of_graph in engine.small.passes(x, [masks])[:1]:
        check(of_graph[0], passes)
    for mask, ours in zip(masks, passes, strict=True):
        # In eval mode the node is the identity, so dropping its input is dropping its output.
        masked = onnx_runtime(data, x * mask)[0] if "features" not in _read(case) else None
        if masked is not None:
            check(ours, masked)


def _read(case: Case) -> set[str]:
    return {name for made in case.nodes for name in made.input}


@pytest.mark.parametrize("op", ELEMENTWISE)
def test_elementwise(op: str) -> None:
    for case in ELEMENTWISE_CASES[op]:
        same_as_onnx_runtime(case)


@pytest.mark.parametrize("name", READER_CASES)
def test_other_operations(name: str) -> None:
    same_as_onnx_runtime(READER_CASES[name])


@pytest.mark.parametrize("masks", ["independent", "stratified"])
def test_a_network_of_everything_is_estimated(masks: str) -> None:
    """Residual blocks with normalisation, two heads: the estimate is that of its samples."""
    assert masks in ("independent", "stratified")
    square = constant("square", rng.normal(size=(UNITS, UNITS)) * 0.5)
    nodes = [
        node("LayerNormalization", "features scale shift", "n"),
        node("Dropout", "n half", "d1"),
        node("MatMul", "d1 square", "m1"),
        node("BatchNormalization", f"m1 {BATCH}", "b1"),
        node("Gelu", "b1", "g1", approximate="tanh"),
        node("Add", "g1 n", "r1"),
        node("Dropout", "r1 half", "d2"),
        node("Gemm", "d2 w b", "heads"),
        node("Split", "heads sizes", "mean log_variance_2", axis=1),
        node("Slice", "log_variance_2 start end one", "log_variance"),
        node("Softplus", "log_variance", "noise_variance"),
    ]
    constants = [
        HALF, square, w, b, *batch_constants,
        int64("sizes", 1, 2), int64("start", 1), int64("end", 2), int64("one", 1),
    ]  # fmt: skip
    data = model(nodes, constants, UNITS, {"mean": 1, "noise_variance": 1}, opset=20)
    loaded = model_of(data)
    x = rng.normal(size=(5, UNITS)).astype(np.float32)
    mean, noise = onnx_runtime(data, x)
    plain = loaded.run(x)
    np.testing.assert_allclose(plain.mean, mean, rtol=1e-5)
    assert plain.aleatoric_variance is not None
    np.testing.assert_allclose(plain.aleatoric_variance, noise, rtol=1e-5)

    # Every mask of its 8 units, by the engine's own passes, which the cases above have proven.
    bits = (np.arange(256)[:, None] >> np.arange(8) & 1).astype(np.float32) * 2.0
    means, noises = engine_of(data).passes(x, [bits[:, :UNITS], bits[:, UNITS:]])
    answer = loaded.run(x, MonteCarloOptions(40_000, 1, masks=masks))  # type: ignore[arg-type]
    assert answer.variance is not None
    assert answer.aleatoric_variance is not None
    spread = means.std(axis=0) / 200.0
    np.testing.assert_array_less(np.abs(answer.mean - means.mean(axis=0)), 4.5 * spread)
    np.testing.assert_allclose(answer.variance, means.var(axis=0), rtol=0.08)
    np.testing.assert_allclose(
        answer.aleatoric_variance, noises.mean(axis=0), atol=float(4.5 * noises.std(axis=0).max() / 200.0)
    )
