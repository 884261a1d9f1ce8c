"""The linearised network as a control variate: fewer passes, no bias, honest errors, sound answers."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import pytest
import torch

from dropserve_models.inference.boundary import Boundary
from dropserve_models.inference.control_variate import ControlVariate
from dropserve_models.inference.engine import Engine
from dropserve_models.inference.linearisation import MOST_OUTPUTS
from dropserve_models.inference.operators import bound
from dropserve_models.inference.plan import make_plan
from dropserve_models.inference.program import Program
from dropserve_models.prediction import MonteCarloOptions, Prediction
from support.engines import Array, blueprint_of, engine_of, small_of
from support.exact import Wide, enumerate_masks, moments
from support.onnx_models import Mlp, constant, mlp, model, node

ROWS: Array = np.random.default_rng(1).normal(size=(6, 3)).astype(np.float32)
SMALL = mlp([3, 9, 5, 2], [0.25, 0.1, 0.5], seed=3)
WIDE = mlp([3, 60, 40, 1], [0.0, 0.2, 0.5], seed=5)
ALWAYS_ACTIVE = mlp([3, 30, 20, 2], [0.0, 0.3, 0.5], seed=1)
for bias, more in zip(ALWAYS_ACTIVE.biases, (10.0, 500.0, 0.0), strict=True):
    bias += np.float32(more)


def program_of(data: bytes) -> Program:
    program = blueprint_of(data).program
    assert program is not None
    return program


def linearised(data: bytes, features: Array) -> dict[str, Wide]:
    """All that a linearisation is made of, [rows, units], by its role."""
    blueprint = blueprint_of(data)
    program = program_of(data)
    found = make_plan(program).linearisation
    assert found is not None
    variate = ControlVariate(found, [bound(step) for step in found.program.steps])
    boundary = Boundary(program, blueprint.prefix, blueprint.opening).by_units(features)
    values = {
        name: value[:, 0].numpy().T.astype(np.float64) for name, value in variate.values(boundary).items()
    }
    roles = {"centre": values[found.centre]}
    for output, (total, spread) in enumerate(zip(found.totals, found.spreads, strict=True)):
        roles |= {f"total {output}": values[total], f"spread {output}": values[spread]}
        roles |= {f"{site} {output}": values[names[output]] for site, names in found.gradients.items()}
    return roles


def plain(engine: Engine) -> Engine:
    """The same engine without the control variate."""
    engine._runner._variate = None
    return engine


def answers(engine: Engine, features: Array, passes: int, seeds: int) -> list[Prediction]:
    return [engine.run(features, MonteCarloOptions(passes, seed)) for seed in range(seeds)]


def stack(found: list[Prediction], field: str) -> Wide:
    return np.stack([getattr(answer, field) for answer in found]).astype(np.float64)


@cache
def truth() -> Any:
    return moments(*enumerate_masks(SMALL, ROWS))


def test_where_all_units_are_active_the_slopes_are_the_derivatives() -> None:
    """Then the prediction without the last dropout is affine in the masks."""
    roles = linearised(ALWAYS_ACTIVE.onnx(), ROWS)
    first, second, last = (weight.astype(np.float64) for weight in ALWAYS_ACTIVE.weights)
    hidden = ROWS @ first + ALWAYS_ACTIVE.biases[0]
    gradient = hidden[:, :, None] * (second @ last)
    for output in range(2):
        np.testing.assert_allclose(roles[f"0 {output}"], gradient[:, :, output], rtol=1e-3)
        np.testing.assert_allclose(roles[f"total {output}"][:, 0], gradient[:, :, output].sum(1), rtol=1e-3)
        spread = 0.3 / 0.7 * (gradient[:, :, output] ** 2).sum(axis=1)
        np.testing.assert_allclose(roles[f"spread {output}"][:, 0], spread, rtol=2e-3)
    mean = ALWAYS_ACTIVE.forward(ROWS, [None, None, None])
    np.testing.assert_allclose(roles["centre"], mean, rtol=1e-4)


def test_where_all_units_are_active_two_passes_know_the_mean() -> None:
    mean = ALWAYS_ACTIVE.forward(ROWS, [None, None, None])
    engine = engine_of(ALWAYS_ACTIVE.onnx())
    for answer in [
        *answers(engine, ROWS, 2, 20),
        small_of(ALWAYS_ACTIVE.onnx(), ROWS).run([ROWS], MonteCarloOptions(2))[0],
    ]:
        assert answer.standard_error is not None
        np.testing.assert_allclose(answer.mean, mean, rtol=1e-4)
        assert answer.std is not None
        assert (answer.standard_error < 1e-3 * answer.std).all()


@pytest.mark.parametrize("passes", [4, 27])
def test_two_dropouts_before_the_last_bring_no_bias(passes: int) -> None:
    """What is known of each adds up. One is seen to, and standard errors are, in test_enumeration."""
    found = answers(engine_of(SMALL.onnx()), ROWS, passes, 300)
    for name, expected in (("mean", truth().mean), ("variance", truth().variance)):
        values = stack(found, name)
        error = values.std(axis=0, ddof=1) / np.sqrt(len(values))
        # The floor of the variance, and uneven strata, are approximations.
        allowed = 0.0 if name == "mean" else 0.03 * expected
        np.testing.assert_array_less(np.abs(values.mean(axis=0) - expected), 5.0 * error + allowed + 1e-6)


def test_it_takes_less_than_half_of_the_passes() -> None:
    features = np.random.default_rng(2).normal(size=(20, 3)).astype(np.float32)
    engine = engine_of(WIDE.onnx())
    exact = stack(answers(engine, features, 5000, 4), "std").mean(axis=0)
    ours = stack(answers(engine, features, 20, 100), "std") / exact - 1.0
    theirs = stack(answers(plain(engine), features, 20, 100), "std") / exact - 1.0
    assert (ours**2).mean() < 0.4 * (theirs**2).mean()


def test_the_variance_is_at_least_half_of_that_over_the_last_masks() -> None:
    """However unlucky the masks are; for a network that no affine function comes near."""
    network = mlp([3, 8, 8, 8, 8, 1], [0.6, 0.6, 0.6, 0.6, 0.3], seed=2)
    engine = engine_of(network.onnx())
    found = stack(answers(engine, ROWS, 1, 100), "variance")
    within = stack(answers(plain(engine), ROWS, 1, 100), "variance")  # which is all that one pass knows then
    assert (found >= 0.5 * within * (1.0 - 1e-5)).all()
    assert (found < within).any()
    small = small_of(network.onnx(), ROWS)
    found = stack([small.run([ROWS], MonteCarloOptions(4))[0] for _ in range(100)], "variance")
    assert found.min() > 0.0


UNITWISE = {
    "Tanh": [node("Tanh", "a", "h")],
    "Sigmoid": [node("Sigmoid", "a", "h")],
    "Gelu": [node("Gelu", "a", "h")],
    "LeakyRelu": [node("LeakyRelu", "a", "h")],
    "a relu, and a constant": [node("Relu", "a", "r"), node("Mul", "r half", "b"), node("Tanh", "b", "h")],
    "units that are never active": [
        node("Sub", "a far", "b"),
        node("Relu", "b", "r"),
        node("Tanh", "r", "t"),
        node("Add", "t d", "h"),
    ],
    "constants": [node("Mul", "a scale", "b"), node("Sub", "scale b", "c"), node("Div", "c scale", "h")],
    "residual": [node("Tanh", "a", "t"), node("Add", "t d", "h")],
    "residual, taken off": [node("Tanh", "a", "t"), node("Sub", "d t", "h")],
    "a value of the prefix": [node("Tanh", "a", "t"), node("Mul", "t features", "h")],
    "a sum of three": [node("Tanh", "a", "t"), node("Sum", "t d a", "h")],
}
WITHOUT = {
    "a reciprocal": [node("Exp", "a", "q"), node("Reciprocal", "q", "h")],
    "divided by": [node("Exp", "a", "q"), node("Div", "scale q", "h")],
    "a product": [node("Mul", "a d", "h")],
    "softmax": [node("Softmax", "a", "h")],
    "one unit for all": [node("MatMul", "a column", "s"), node("Tanh", "a", "t"), node("Add", "t s", "h")],
    "a gate": [node("MatMul", "a column", "s"), node("Sigmoid", "s", "g"), node("Mul", "features g", "h")],
}


def topology(nodes: list[Any], outputs: int = 1, width: int = 24) -> bytes:
    rng = np.random.default_rng(0)
    constants = [
        constant("half", 0.5), constant("third", 0.3), constant("scale", rng.uniform(0.5, 2.0, width)),
        constant("far", np.full(1, 1e4)), constant("column", rng.normal(size=(width, 1)) / width),
        constant("w", rng.normal(size=(width, width)) / np.sqrt(width)),
        constant("v", rng.normal(size=(width, outputs)) / np.sqrt(width)),
    ]  # fmt: skip
    begin = [node("Dropout", "features third", "d"), node("MatMul", "d w", "a")]
    end = [node("Dropout", "h half", "e"), node("MatMul", "e v", "prediction")]
    return model([*begin, *nodes, *end], constants, width, outputs, opset=20)


@pytest.mark.parametrize("name", UNITWISE)
def test_operations(name: str) -> None:
    """With the variate, the passes' means scatter less, and more passes tell the same."""
    data = topology(UNITWISE[name])
    features = np.random.default_rng(2).normal(size=(16, 24)).astype(np.float32)
    engine = engine_of(data)
    with_it, small = answers(engine, features, 20, 40), small_of(data, features)
    exact = [np.mean(stack(answers(engine, features, 2000, 3), field), axis=0) for field in ("mean", "std")]
    without = answers(plain(engine), features, 20, 40)
    for field, expected in zip(("mean", "std"), exact, strict=True):
        errors = [((stack(found, field) - expected) ** 2).mean() for found in (with_it, without)]
        assert errors[0] < (1.2 if field == "mean" else 0.5) * errors[1]
    found = [small.run([features], MonteCarloOptions(20))[0] for _ in range(40)]
    assert ((stack(found, "std") - exact[1]) ** 2).mean() < 0.5 * (
        (stack(without, "std") - exact[1]) ** 2
    ).mean()


@pytest.mark.parametrize("name", WITHOUT)
def test_operations_without_a_slope_are_answered_as_they_were(name: str) -> None:
    data = topology(WITHOUT[name])
    program = program_of(data)
    assert make_plan(program).linearisation is None
    features = np.random.default_rng(2).normal(size=(4, 24)).astype(np.float32)
    answer = engine_of(data).run(features, MonteCarloOptions(20, 1))
    assert answer.variance is not None
    assert (answer.variance > 0.0).all()


@pytest.mark.parametrize(("outputs", "expected"), [(MOST_OUTPUTS, True), (MOST_OUTPUTS + 1, False)])
def test_many_outputs_go_without(outputs: int, expected: bool) -> None:
    program = program_of(topology([node("Relu", "a", "h")], outputs))
    assert (make_plan(program).linearisation is not None) is expected


@pytest.mark.parametrize(
    "network", [SMALL, mlp([3, 9, 1], [0.0, 0.5]), mlp([3, 9, 9, 2], [0.1, 0.1, 0.5], last="Softmax")]
)
def test_where_nothing_is_left_to_sample_or_the_tail_is_not_affine_there_is_none(network: Mlp) -> None:
    program = program_of(network.onnx())
    assert (make_plan(program).linearisation is not None) is (network is SMALL)


@pytest.mark.parametrize("scale", [0.0, 1e-15, 1e9])
def test_rows_of_any_size_have_finite_answers(scale: float) -> None:
    network = Mlp(SMALL.weights, [np.zeros_like(bias) for bias in SMALL.biases], SMALL.rates)
    rows = (ROWS * np.float32(scale)).astype(np.float32)
    answer = engine_of(network.onnx()).run(rows, MonteCarloOptions(20, 1))
    small = small_of(network.onnx(), rows).run([rows], MonteCarloOptions(20))[0]
    unit = engine_of(network.onnx()).run(ROWS, MonteCarloOptions(20, 1))
    for found in (answer, small):
        assert np.isfinite(found.mean).all()
        assert found.variance is not None
        assert np.isfinite(found.variance).all()
    assert answer.std is not None
    assert unit.std is not None
    np.testing.assert_allclose(answer.std, unit.std * np.float32(scale), rtol=1e-3)


def test_requests_for_independent_masks_or_samples_are_as_they_were() -> None:
    engine = engine_of(SMALL.onnx())
    wanted = [MonteCarloOptions(20, 1, masks="independent"), MonteCarloOptions(20, 1, return_samples=True)]
    before = [engine.run(ROWS, options) for options in wanted]
    after = [plain(engine).run(ROWS, options) for options in wanted]
    for ours, theirs in zip(before, after, strict=True):
        np.testing.assert_array_equal(ours.variance, theirs.variance)
    assert torch.is_grad_enabled()
