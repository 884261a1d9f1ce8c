"""The engine against what can be computed exactly: published numbers, closed forms, float64."""

from __future__ import annotations

import math

import numpy as np
import pytest

from dropserve_models.prediction import Masks, MonteCarloOptions
from support.engines import Array, engine_of, model_of, onnx_runtime
from support.onnx_models import Mlp, mlp


def test_worked_case_of_inverted_dropout() -> None:
    """A widely copied exercise: keep .7, relu, relu, sigmoid, its weights and masks drawn by seed 1."""
    x = np.array([
        [1.62434536, -0.61175641, -0.52817175, -1.07296862, 0.86540763],
        [-2.30153870, 1.74481176, -0.76120690, 0.31903910, -0.24937038],
        [1.46210794, -2.06014071, -0.32241720, -0.38405435, 1.13376944],
    ], np.float32)  # fmt: skip
    w1 = [[-1.0998912673140309, -0.17242820755043575, -0.8778584179213718],
          [0.04221374671559283, 0.5828152137158222, -1.1006191772129212]]  # fmt: skip
    b1 = [1.1447237098396141, 0.9015907205927955]
    w2 = [[0.5024943389018682, 0.9008559492644118],
          [-0.6837278591743331, -0.12289022551864817],
          [-0.9357694342590688, -0.2678880796260159]]  # fmt: skip
    b2 = [0.530355466738186, -0.691660751725309, -0.39675352685597737]
    w3 = [[-0.6871727001195994, -0.8452056414987196, -0.671246130836819]]
    b3 = [-0.01266459891890136]
    d1 = np.array([[1, 0, 1, 1, 1], [1, 1, 1, 1, 1]], np.float32)
    d2 = np.array([[1, 1, 1, 0, 1], [1, 1, 1, 1, 1], [0, 0, 1, 1, 0]], np.float32)
    published = [0.36974721, 0.00305176, 0.04565099, 0.49683389, 0.36974721]

    network = Mlp(
        [np.array(weight, np.float32).T for weight in (w1, w2, w3)],
        [np.array(bias, np.float32) for bias in (b1, b2, b3)],
        [0.0, 0.3, 0.3],
        last="Sigmoid",
    )
    # There every example has masks of its own; here every pass has, so example i is row i of pass i.
    (outputs,) = engine_of(network.onnx()).passes(
        x.T.copy(), [d1.T / np.float32(0.7), d2.T / np.float32(0.7)]
    )
    assert outputs.shape == (5, 5, 1)
    np.testing.assert_allclose(np.diagonal(outputs[:, :, 0]), published, rtol=1e-5, atol=1e-8)


@pytest.mark.parametrize(
    ("rate", "masks"),
    [(0.05, "independent"), (0.5, "independent"), (0.9, "independent"), (0.2, "stratified")],
)
def test_linear_network_with_input_dropout(rate: float, masks: Masks) -> None:
    """Mean w.x + b, variance sum p/(1-p) w_i^2 x_i^2, at 100,000 passes."""
    passes = 100_000
    network = mlp([12, 2], [rate], seed=1)
    (weight,), (bias,) = network.weights, network.biases
    x = np.random.default_rng(2).normal(size=(3, 12)).astype(np.float32)
    mean = x.astype(np.float64) @ weight + bias
    variance = rate / (1.0 - rate) * (x.astype(np.float64) ** 2) @ (weight.astype(np.float64) ** 2)
    # Fourth central moment of a sum of independent terms, each t (m - 1): for the variance's own error.
    odds = rate / (1.0 - rate)
    terms = (x[:, :, None].astype(np.float64) * weight) ** 4
    excess = (odds * (odds**2 - 4 * odds + 1)) * terms.sum(axis=1)
    fourth = excess + 3.0 * variance**2

    prediction = model_of(network.onnx()).predict(x, passes=passes, seed=3, masks=masks)

    assert prediction.passes <= passes
    assert prediction.variance is not None
    error = np.sqrt(variance / passes)
    np.testing.assert_array_less(np.abs(prediction.mean - mean), 4.5 * error + 1e-6 * np.abs(mean).max())
    spread = np.sqrt((fourth - variance**2) / passes)
    np.testing.assert_array_less(np.abs(prediction.variance - variance), 4.5 * spread + 1e-5 * variance.max())


@pytest.mark.parametrize("masks", ["independent", "stratified"])
def test_rates_of_zero_are_no_dropout(masks: Masks) -> None:
    """A node of rate 0 is the identity; beside one that is not, it changes nothing."""
    with_node = mlp([6, 8, 3], [0.0, 0.3])
    data = with_node.onnx()
    x = np.random.default_rng(0).normal(size=(5, 6)).astype(np.float32)
    assert model_of(mlp([6, 8, 3], [0.0, 0.0]).onnx()).monte_carlo_unavailable is not None
    np.testing.assert_allclose(engine_of(data).evaluate(x)[0], onnx_runtime(data, x)[0], rtol=1e-5, atol=1e-6)
    tiny = mlp([6, 8, 3], [0.0, 1e-7])  # a rate so small that no unit of 100 passes is dropped
    prediction = model_of(tiny.onnx()).predict(x, passes=100, seed=1, masks=masks)
    assert prediction.variance is not None
    np.testing.assert_allclose(prediction.mean, onnx_runtime(tiny.onnx(), x)[0], rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(prediction.variance, 0.0, atol=1e-5)


@pytest.mark.parametrize("gemm", [False, True])
@pytest.mark.parametrize(
    "network",
    [
        mlp([784, 256, 256, 10], [0.0, 0.2, 0.5], last="Softmax"),
        mlp([30, 64, 64, 2], [0.1, 0.2, 0.5], last="Softmax"),
        mlp([10, 100, 100, 1], [0.0, 0.5, 0.5]),
        mlp([10, 100, 100, 1], [0.05, 0.5, 0.0], last="Sigmoid"),
        mlp([1, 1, 1], [0.5, 0.5]),
    ],
    ids=lambda network: "-".join(str(len(weight)) for weight in network.weights) + network.last,
)
def test_float32_passes_agree_with_float64(network: Mlp, gemm: bool) -> None:
    """Every pass, given its masks, within 1e-4 of the largest output; so is eval mode of ONNX Runtime."""
    rng = np.random.default_rng(7)
    features = len(network.weights[0])
    x = rng.normal(size=(9, features)).astype(np.float32)
    given = [
        ((rng.random((13, len(weight))) >= rate) / np.float32(1.0 - rate)).astype(np.float32)
        for weight, rate in zip(network.weights, network.rates, strict=True)
        if rate
    ]
    left = iter(given)
    exact = network.forward(x, [next(left)[:, None, :] if rate else None for rate in network.rates])
    engine = engine_of(network.onnx(gemm=gemm))
    (outputs,) = engine.passes(x, given)
    assert outputs.dtype == np.float32
    assert outputs.shape == exact.shape
    np.testing.assert_allclose(outputs, exact, rtol=1e-4, atol=1e-4 * np.abs(exact).max())
    eval_mode = onnx_runtime(network.onnx(gemm=gemm), x)[0]
    np.testing.assert_allclose(
        engine.evaluate(x)[0], eval_mode, rtol=1e-4, atol=1e-5 * np.abs(eval_mode).max()
    )


@pytest.mark.parametrize("masks", ["independent", "stratified"])
def test_samples_and_moments_agree(masks: Masks) -> None:
    """What is reported of a run is what its samples say, where they are returned."""
    network = mlp([6, 30, 20, 3], [0.1, 0.3, 0.5], last="Softmax", seed=3)
    x = np.random.default_rng(8).normal(size=(7, 6)).astype(np.float32)
    model = model_of(network.onnx())
    levels = (0.0, 0.05, 0.5, 0.77, 1.0)
    answer = model.run(x, MonteCarloOptions(60, 9, levels, True, masks))
    assert answer.samples is not None
    assert answer.samples.shape == (60, 7, 3)
    assert answer.quantiles is not None
    assert answer.quantiles.shape == (5, 7, 3)
    samples = answer.samples.astype(np.float64)
    np.testing.assert_allclose(answer.mean, samples.mean(axis=0), rtol=1e-5)
    np.testing.assert_allclose(answer.quantiles, np.quantile(samples, levels, axis=0), rtol=1e-5, atol=1e-7)
    assert answer.expected_entropy is not None
    assert answer.predictive_entropy is not None
    assert answer.mutual_information is not None
    entropies = -(samples * np.log(samples)).sum(axis=2).mean(axis=0)
    np.testing.assert_allclose(answer.expected_entropy, entropies, rtol=1e-4)
    mean = samples.mean(axis=0)
    np.testing.assert_allclose(answer.predictive_entropy, -(mean * np.log(mean)).sum(axis=1), rtol=1e-4)
    np.testing.assert_allclose(
        answer.mutual_information, answer.predictive_entropy - answer.expected_entropy, atol=2e-6
    )
    assert (answer.mutual_information >= 0.0).all()
    assert answer.variance is not None
    assert answer.std is not None
    np.testing.assert_array_equal(answer.std, np.sqrt(answer.variance))
    if masks == "independent":
        np.testing.assert_allclose(answer.variance, samples.var(axis=0, ddof=1), rtol=1e-4, atol=1e-9)
        assert answer.standard_error is not None
        expected = samples.std(axis=0, ddof=1) / math.sqrt(60)
        np.testing.assert_allclose(answer.standard_error, expected, rtol=1e-4, atol=1e-9)


@pytest.mark.parametrize("outputs", [1, 2])
def test_samples_are_those_of_a_pass_whatever_else_is_asked(outputs: int) -> None:
    """Quantiles sort them; what is returned stays in the order of the passes, joint over the rows."""
    model = model_of(mlp([6, 30, outputs], [0.2, 0.5]).onnx())
    x = np.random.default_rng(8).normal(size=(5, 6)).astype(np.float32)
    plain = model.run(x, MonteCarloOptions(40, 3, return_samples=True)).samples
    both = model.run(x, MonteCarloOptions(40, 3, (0.5,), return_samples=True)).samples
    assert plain is not None
    assert both is not None
    np.testing.assert_array_equal(both, plain)
    assert (np.diff(plain, axis=0) < 0.0).any()


@pytest.mark.parametrize("masks", ["independent", "stratified"])
@pytest.mark.parametrize("power", [-40, -20, 20, 40])
def test_units_do_not_matter(power: int, masks: Masks) -> None:
    """Targets in other units, by a power of two so that nothing is rounded: the same digits."""
    network = mlp([6, 20, 20, 1], [0.0, 0.2, 0.5])
    unit = np.float32(2.0**power)
    scaled = Mlp(
        [*network.weights[:2], network.weights[2] * unit], [*network.biases[:2], network.biases[2] * unit],
        network.rates,
    )  # fmt: skip
    x = np.random.default_rng(8).normal(size=(5, 6)).astype(np.float32)
    ours, theirs = (model_of(m.onnx()).predict(x, passes=50, seed=1, masks=masks) for m in (network, scaled))
    for name, factor in [
        ("mean", unit),
        ("std", unit),
        ("standard_error", unit),
        ("std_standard_error", unit),
    ]:
        np.testing.assert_allclose(
            getattr(theirs, name) / factor, getattr(ours, name), rtol=1e-4, err_msg=name
        )


def test_variance_survives_a_mean_far_from_zero() -> None:
    """Sum of squares less square of sum would lose every digit of a spread 1e-5 of the mean."""
    network = mlp([4, 1], [0.5], seed=1)
    shifted = Mlp(network.weights, [network.biases[0] + np.float32(3e4)], network.rates)
    x = np.random.default_rng(1).normal(size=(3, 4)).astype(np.float32)
    near, far = (
        model_of(m.onnx()).predict(x, passes=50, seed=2, masks="independent") for m in (network, shifted)
    )
    assert near.variance is not None
    assert far.variance is not None
    np.testing.assert_allclose(far.variance, near.variance, rtol=2e-2)


def test_passes_are_one_function_of_all_rows() -> None:
    """All rows of a request share the masks of a pass: joint samples, equal rows answered alike."""
    x: Array = np.ones((4, 6), np.float32)
    answer = model_of(mlp([6, 30, 2], [0.2, 0.5]).onnx()).predict(
        x, passes=50, seed=1, return_samples=True, masks="independent"
    )
    assert answer.samples is not None
    np.testing.assert_allclose(answer.samples, answer.samples[:, :1].repeat(4, axis=1), rtol=1e-5)
    assert answer.samples[:, 0].std(axis=0).min() > 0.0
