"""Where all dropout comes before a last linear layer, nothing is sampled: the answer is exact."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest

from dropserve_models.prediction import MonteCarloOptions
from support.exact import Wide
from support.onnx_models import Array, constant, mlp, model, node
from support.ways import WAYS, Way

RATE = 0.4
NETWORK = mlp([5, 9, 2], [0.0, RATE], seed=4)
NOISE = mlp([9, 2], [0.0], seed=6)
"""The head of the noise, after the same hidden layer."""
SCALE, SHIFT = np.array([3.0, 0.01]), np.array([-7.0, 40.0])
ROWS: Array = np.random.default_rng(5).normal(size=(6, 5)).astype(np.float32)


def with_noise() -> bytes:
    """As the trainer exports them: one layer for both heads, and targets put back into their own units."""
    nodes = [
        node("MatMul", "features w1", "m1"), node("Add", "m1 b1", "a1"), node("Relu", "a1", "h"),
        node("Dropout", "h rate", "d"), node("MatMul", "d w2", "m2"), node("Add", "m2 b2", "a2"),
        node("Split", "a2 sizes", "centre log_variance", axis=1),
        node("Mul", "centre scale", "scaled"), node("Add", "scaled shift", "prediction"),
        node("Exp", "log_variance", "noise_variance"),
    ]  # fmt: skip
    constants = [
        constant("w1", NETWORK.weights[0]), constant("b1", NETWORK.biases[0]), constant("rate", RATE),
        constant("w2", np.hstack([NETWORK.weights[1], NOISE.weights[0]])),
        constant("b2", np.hstack([NETWORK.biases[1], NOISE.biases[0]])),
        constant("sizes", [2, 2], np.int64), constant("scale", SCALE), constant("shift", SHIFT),
    ]  # fmt: skip
    return model(nodes, constants, 5, {"prediction": 2, "noise_variance": 2})


MODELS = {"plain": NETWORK.onnx(), "with noise": with_noise()}


def hidden() -> Wide:
    weight, bias = NETWORK.weights[0].astype(np.float64), NETWORK.biases[0]
    return np.maximum(ROWS.astype(np.float64) @ weight + bias, 0.0)


def exact(name: str) -> tuple[Wide, Wide]:
    """Mean A h + c, variance sum of p/(1-p) (A h)^2."""
    weight = NETWORK.weights[1].astype(np.float64)
    mean, variance = hidden() @ weight + NETWORK.biases[1], RATE / (1.0 - RATE) * hidden() ** 2 @ weight**2
    return (mean * SCALE + SHIFT, variance * SCALE**2) if name == "with noise" else (mean, variance)


@cache
def way_of(way: str, name: str) -> Way:
    return WAYS[way](MODELS[name], ROWS)


@pytest.mark.parametrize("passes", [1, 2, 10, 100])
@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("way", WAYS)
def test_mean_and_variance_are_exact(way: str, name: str, passes: int) -> None:
    """By so much: a float32 has 24 bits. A single pass of one seed, had it been sampled, would be far off."""
    mean, variance = exact(name)
    answer = way_of(way, name).ask(ROWS, MonteCarloOptions(passes, 6))
    np.testing.assert_allclose(answer.mean, mean, rtol=2e-6, atol=1e-6 * np.abs(mean - SHIFT).max())
    assert answer.variance is not None
    np.testing.assert_allclose(answer.variance, variance, rtol=2e-5)
    if name == "plain":
        assert answer.passes == 1, "more would be the same"
    else:
        assert answer.passes == passes, "the noise is sampled"
    for error in (answer.standard_error, answer.std_standard_error):
        if way != "in one graph" or passes > 1:
            np.testing.assert_array_equal(error, np.zeros((6, 2)))


@pytest.mark.parametrize("rate", [0.05, 0.5, 0.9])
@pytest.mark.parametrize("way", WAYS)
def test_a_linear_network_with_input_dropout_is_exact(way: str, rate: float) -> None:
    """Mean w.x + b, variance sum of p/(1-p) w_i^2 x_i^2."""
    network = mlp([5, 2], [rate], seed=1)
    weight, x = network.weights[0].astype(np.float64), ROWS.astype(np.float64)
    answer = WAYS[way](network.onnx(), ROWS).ask(ROWS, MonteCarloOptions(10, 6))
    np.testing.assert_allclose(answer.mean, x @ weight + network.biases[0], rtol=1e-5, atol=1e-6)
    assert answer.variance is not None
    np.testing.assert_allclose(answer.variance, rate / (1.0 - rate) * x**2 @ weight**2, rtol=1e-5)


@pytest.mark.parametrize("way", WAYS)
def test_the_noise_is_what_the_passes_predict(way: str) -> None:
    computing, options = way_of(way, "with noise"), MonteCarloOptions(100, 6)
    answer = computing.ask(ROWS, options)
    masks = computing.drawn(options).masks[-1]
    log_variance = (hidden() * masks.reshape(-1, 1, 9)) @ NOISE.weights[0].astype(np.float64)
    expected = np.exp(log_variance + NOISE.biases[0]).mean(axis=0)
    assert answer.aleatoric_variance is not None
    np.testing.assert_allclose(answer.aleatoric_variance, expected, rtol=1e-4)


@pytest.mark.parametrize("way", WAYS)
def test_independent_masks_are_not_integrated(way: str) -> None:
    mean, variance = exact("plain")
    answer = way_of(way, "plain").ask(ROWS, MonteCarloOptions(100, 6, masks="independent"))
    assert answer.passes == 100
    assert (np.abs(answer.mean - mean) > 1e-4 * np.sqrt(variance)).any()
