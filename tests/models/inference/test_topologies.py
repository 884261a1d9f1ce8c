"""Networks that are not a chain: every way of running them agrees, and with the enumeration of all masks."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product

import numpy as np
import onnx
import pytest

from dropserve_models.inference.masks import dropped, strata
from dropserve_models.prediction import Masks, MonteCarloOptions, Prediction
from support.engines import Array, engine_of, small_of
from support.onnx_models import constant, model, node

Nodes = Sequence[onnx.NodeProto]
D, E = node("Dropout", "features half", "d"), node("Dropout", "h third", "e")
LINEAR = node("MatMul", "d w", "a")

TOPOLOGIES: dict[str, Nodes] = {
    "chain": [D, LINEAR, node("Relu", "a", "h"), E, node("MatMul", "e v", "prediction")],
    "constants between": [
        D, LINEAR, node("Mul", "a scale", "m"), node("Add", "m shift", "h"), E,
        node("Sub", "shift e", "prediction"),
    ],
    "dropout last": [node("MatMul", "features w", "h"), E, node("Neg", "e", "prediction")],
    "two in a row": [D, node("Identity", "d", "h"), E, node("MatMul", "e w", "prediction")],
    "read twice": [D, LINEAR, node("MatMul", "d v", "b"), node("Mul", "a b", "prediction")],
    "residual": [
        D, LINEAR, node("Relu", "a", "h"), E, node("MatMul", "e v", "b"), node("Add", "b d", "prediction"),
    ],
    "residual around everything": [
        node("Tanh", "features", "t"), node("Dropout", "t half", "d"), LINEAR, node("Relu", "a", "h"), E,
        node("MatMul", "e v", "b"), node("Add", "b features", "s"), node("Add", "s t", "prediction"),
    ],
    "parallel": [
        D, LINEAR, node("Relu", "a", "r"), node("Sigmoid", "features", "h"), E, node("MatMul", "e v", "b"),
        node("Add", "r b", "prediction"),
    ],
    "joined before the tail": [
        D, LINEAR, node("Softplus", "features", "t"), node("Dropout", "t half", "dt"),
        node("MatMul", "dt v", "b"), node("Mul", "a b", "m"), node("Tanh", "m", "h"), E,
        node("MatMul", "e w", "s"), node("Softmax", "s", "prediction"),
    ],
    "hidden layer read past its dropout": [
        D, LINEAR, node("Relu", "a", "h"), E, node("MatMul", "e v", "b"), node("Add", "b h", "prediction"),
    ],
    "softmax": [
        D, LINEAR, node("Relu", "a", "h"), E, node("MatMul", "e v", "s"), node("Softmax", "s", "prediction"),
    ],
    "noise by another dropout": [
        D, LINEAR, node("Identity", "a", "prediction"), node("Tanh", "a", "h"), E, node("MatMul", "e v", "n"),
        node("Softplus", "n", "noise_variance"),
    ],
    "noise without dropout": [
        D, node("MatMul", "d w", "prediction"), node("Softplus", "features", "noise_variance"),
    ],
    "an output nobody asked for": [D, node("MatMul", "d w", "prediction"), node("Relu", "features", "extra")],
}  # fmt: skip


def build(name: str, units: int) -> bytes:
    rng = np.random.default_rng(units)
    constants = [
        constant("half", 0.5), constant("third", 0.3),
        constant("w", rng.normal(size=(units, units)) / np.sqrt(units)),
        constant("v", rng.normal(size=(units, units)) / np.sqrt(units)),
        constant("scale", rng.normal(size=units)), constant("shift", rng.normal(size=units)),
    ]  # fmt: skip
    nodes = TOPOLOGIES[name]
    made = {out for each in nodes for out in each.output}
    outputs = [out for out in ("prediction", "noise_variance", "extra") if out in made]
    return model(list(nodes), constants, units, dict.fromkeys(outputs, units))


@pytest.mark.parametrize("masks", ["independent", "stratified"])
@pytest.mark.parametrize("units", [5, 160])
@pytest.mark.parametrize("name", TOPOLOGIES)
def test_every_sample_is_the_pass_of_its_masks(name: str, units: int, masks: Masks) -> None:
    """Large networks are thinned: their samples are those of the whole one with units multiplied by 0."""
    engine = engine_of(build(name, units))
    x: Array = np.random.default_rng(1).normal(size=(70, units)).astype(np.float32)
    answer = engine.run(x, MonteCarloOptions(23, 5, return_samples=True, masks=masks))
    assert answer.samples is not None
    given = []
    for number, site in enumerate(engine.program.sites):
        drops = dropped(5, number, site.units, site.rate, strata(23, masks))
        given.append(((~drops) / np.float32(1.0 - site.rate)).astype(np.float32))
    prediction, *noise = engine.passes(x, given)
    largest = float(np.abs(prediction).max())
    np.testing.assert_allclose(answer.samples, prediction, rtol=1e-4, atol=1e-4 * largest)
    if noise:
        assert answer.aleatoric_variance is not None
        np.testing.assert_allclose(answer.aleatoric_variance, noise[0].mean(axis=0), rtol=1e-4)
        assert answer.noise_samples is not None
        np.testing.assert_allclose(answer.noise_samples, noise[0], rtol=1e-4, atol=1e-6)
    else:
        assert answer.noise_samples is None


@pytest.mark.parametrize("name", TOPOLOGIES)
def test_the_graph_of_small_requests_computes_the_same_passes(name: str) -> None:
    data = build(name, 7)
    x: Array = np.random.default_rng(1).normal(size=(5, 7)).astype(np.float32)
    engine = engine_of(data)
    rng = np.random.default_rng(3)
    given = [
        ((rng.random((6, site.units)) >= site.rate) / np.float32(1.0 - site.rate)).astype(np.float32)
        for site in engine.program.sites
    ]
    prediction, *noise = engine.passes(x, given)
    found, *found_noise = small_of(data, x).passes(x, given)[0]
    np.testing.assert_allclose(found, prediction, rtol=1e-5, atol=1e-6)
    for ours, theirs in zip(found_noise, noise, strict=True):
        np.testing.assert_allclose(ours[0], theirs.mean(axis=0), rtol=1e-5, atol=1e-6)


def average(answers: Sequence[Prediction]) -> Prediction:
    """Of estimates without bias, of as many passes each."""

    def mean(values: Sequence[Array]) -> Array:
        averaged: Array = np.stack(values).astype(np.float64).mean(axis=0).astype(np.float32)
        return averaged

    variances = [answer.variance for answer in answers if answer.variance is not None]
    noises = [answer.aleatoric_variance for answer in answers if answer.aleatoric_variance is not None]
    return Prediction(
        mean([answer.mean for answer in answers]),
        variance=mean(variances),
        aleatoric_variance=mean(noises) if noises else None,
    )


@pytest.mark.parametrize("small", [False, True], ids=["in blocks", "in one graph"])
@pytest.mark.parametrize("name", TOPOLOGIES)
def test_estimates_are_those_of_all_masks(name: str, small: bool) -> None:
    """With two units a dropout, 16 or 64 masks: the mean, and the variance where its tail is integrated."""
    engine = engine_of(build(name, 2))
    x: Array = np.random.default_rng(2).normal(size=(4, 2)).astype(np.float32)
    sites = engine.program.sites
    bits = np.array(list(product((0.0, 1.0), repeat=2 * len(sites))), np.float32)
    rates = np.repeat([site.rate for site in sites], 2)
    probability = np.where(bits == 1.0, 1.0 - rates, rates).prod(axis=1)
    given = np.split((bits / (1.0 - rates)).astype(np.float32), len(sites), axis=1)
    prediction, *noise = engine.passes(x, given)
    mean = np.tensordot(probability, prediction, 1)
    variance = np.tensordot(probability, (prediction - mean) ** 2, 1)
    fourth = np.tensordot(probability, (prediction - mean) ** 4, 1)

    passes = 10_000
    if small:
        graph = small_of(build(name, 2), x)
        answer = average([graph.run([x], MonteCarloOptions(100))[0] for _ in range(passes // 100)])
    else:
        answer = engine.run(x, MonteCarloOptions(passes, 3))
    assert answer.variance is not None
    np.testing.assert_array_less(np.abs(answer.mean - mean), 4.5 * np.sqrt(variance / passes) + 1e-5)
    error = np.sqrt(np.maximum(fourth - variance**2, 0.0) / passes)
    np.testing.assert_array_less(np.abs(answer.variance - variance), 4.5 * error + 1e-4 * variance + 1e-6)
    if noise:
        expected = np.tensordot(probability, noise[0], 1)
        spread = np.sqrt(np.tensordot(probability, (noise[0] - expected) ** 2, 1) / passes)
        assert answer.aleatoric_variance is not None
        np.testing.assert_array_less(np.abs(answer.aleatoric_variance - expected), 4.5 * spread + 1e-5)
