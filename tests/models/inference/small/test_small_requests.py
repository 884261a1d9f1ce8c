"""Small requests: the graph answers what its own samples say, whichever rows are computed together."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from dropserve_models.inference.masks import strata
from dropserve_models.inference.small import requests
from dropserve_models.inference.small.graph import build as right
from dropserve_models.inference.small.masks import stratum_of_passes
from dropserve_models.prediction import Masks, MonteCarloOptions, Prediction
from support.engines import Array, engine_of, model_of, small_of
from support.exact import Wide
from support.onnx_models import Mlp, mlp

NETWORKS = {
    "softmax": mlp([6, 30, 20, 3], [0.1, 0.3, 0.5], last="Softmax", seed=3),
    "sigmoid": mlp([6, 30, 20, 1], [0.0, 0.3, 0.5], last="Sigmoid", seed=4),
    "regression": mlp([6, 30, 20, 2], [0.2, 0.3, 0.5], seed=5),
}
X: Array = np.random.default_rng(8).normal(size=(7, 6)).astype(np.float32)


def ask(network: Mlp, options: MonteCarloOptions) -> Prediction:
    (answer,) = small_of(network.onnx(), X).run([X], options)
    return answer


@pytest.mark.parametrize("passes", [2, 3, 10, 37, 100, 250])
@pytest.mark.parametrize("masks", ["independent", "stratified"])
@pytest.mark.parametrize("name", NETWORKS)
def test_moments_are_those_of_the_samples(name: str, masks: Masks, passes: int) -> None:
    """Against the formulas of docs/monte-carlo.md, in float64."""
    levels = (0.0, 0.05, 0.5, 0.77, 1.0)
    answer = ask(NETWORKS[name], MonteCarloOptions(passes, None, levels, True, masks))
    assert answer.samples is not None
    samples = answer.samples.astype(np.float64)
    assert samples.shape == (passes, 7, 1 + (name != "softmax") if name != "softmax" else 3)
    groups = strata(passes, masks)
    belongs = stratum_of_passes(groups)
    number = belongs[-1] + 1
    mean = samples.mean(axis=0)

    def of_mean(values: Wide) -> Wide:
        """The variance of the mean of values [passes, ...], by batch means."""
        parts = [values[belongs == stratum] for stratum in range(number)]
        terms = np.stack([len(part) * (part.mean(axis=0) - values.mean(axis=0)) ** 2 for part in parts])
        total: Wide = terms.sum(axis=0) / ((number - 1) * passes)
        return total

    squares = (samples - mean) ** 2
    variance = squares.mean(axis=0) + of_mean(samples)
    for field, expected in [
        ("mean", mean),
        ("variance", variance),
        ("standard_error", np.sqrt(of_mean(samples))),
        ("std_standard_error", np.sqrt(of_mean(squares)) / (2.0 * np.sqrt(variance))),
        ("quantiles", np.quantile(samples, levels, axis=0)),
    ]:
        np.testing.assert_allclose(getattr(answer, field), expected, rtol=1e-4, atol=1e-7, err_msg=field)
    assert answer.variance is not None
    if masks == "independent":
        np.testing.assert_allclose(answer.variance, samples.var(axis=0, ddof=1), rtol=1e-4, atol=1e-9)
    if name == "regression":
        assert answer.predictive_entropy is None
        return
    assert answer.predictive_entropy is not None
    assert answer.expected_entropy is not None
    predictive = -(mean * np.log(mean)).sum(axis=1)
    expected_entropy = -(samples * np.log(samples)).sum(axis=2).mean(axis=0)
    np.testing.assert_allclose(answer.predictive_entropy, predictive, rtol=1e-4)
    np.testing.assert_allclose(answer.expected_entropy, expected_entropy, rtol=1e-4)
    assert answer.mutual_information is not None
    np.testing.assert_allclose(answer.mutual_information, predictive - expected_entropy, atol=2e-6)
    assert (answer.mutual_information >= 0.0).all()


@pytest.mark.parametrize("rows", [1, 3])
@pytest.mark.parametrize(
    "options", [MonteCarloOptions(20), MonteCarloOptions(60, None, (0.5,), True)], ids=str
)
@pytest.mark.parametrize("name", NETWORKS)
def test_rows_computed_apart_are_answered_alike(
    name: str, options: MonteCarloOptions, rows: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = ask(NETWORKS[name], options)
    small = small_of(NETWORKS[name].onnx(), X)
    draws = 8 if name != "regression" and options.passes == 20 else 1
    monkeypatch.setattr(requests, "CHUNK_BYTES", 4 * 30 * options.passes * draws * rows)
    (parts,) = small.run([X], options)
    for field in ("mean", "variance", "standard_error", "samples", "quantiles"):
        if (expected := getattr(whole, field)) is not None:
            np.testing.assert_allclose(getattr(parts, field), expected, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("name", NETWORKS)
def test_requests_answered_together_are_answered_as_they_would_be_alone(name: str) -> None:
    """The masks of a request are its own, for every one of its rows."""
    options = MonteCarloOptions(30, None, (0.1,), True)
    asked = [X[:2], X[2:3], X[3:]]
    together = small_of(NETWORKS[name].onnx(), X).run(asked, options)
    apart = small_of(NETWORKS[name].onnx(), X)
    for part, answer in zip(asked, together, strict=True):
        (alone,) = apart.run([part], options)
        for field in ("mean", "variance", "standard_error", "std_standard_error", "samples", "quantiles"):
            np.testing.assert_allclose(getattr(answer, field), getattr(alone, field), rtol=1e-5, atol=1e-7)


def test_a_single_pass_has_no_error_and_a_certain_answer_none_to_tell() -> None:
    answer = ask(NETWORKS["softmax"], MonteCarloOptions(1, masks="independent"))
    assert answer.standard_error is None
    assert answer.std_standard_error is None
    np.testing.assert_array_equal(answer.variance, 0.0)
    exact = model_of(mlp([6, 20, 2], [0.0, 0.4]).onnx()).predict(X, passes=100)
    assert exact.passes == 1
    np.testing.assert_array_equal(exact.standard_error, 0.0)
    np.testing.assert_array_equal(exact.std_standard_error, 0.0)


@pytest.mark.parametrize("rate", [0.999, 0.9999999])
@pytest.mark.parametrize("name", ["softmax", "regression"])
def test_a_layer_may_be_dropped_whole(name: str, rate: float) -> None:
    network = NETWORKS[name]
    extreme = Mlp(network.weights, network.biases, [0.0, rate, rate], network.last)
    for passes in (1, 10, 100):
        answer = ask(extreme, MonteCarloOptions(passes))
        for field in ("mean", "variance", "standard_error", "mutual_information"):
            value = getattr(answer, field)
            assert value is None or np.isfinite(value).all(), field


@pytest.mark.parametrize("power", [-40, 40])
def test_units_do_not_matter(power: int) -> None:
    network = NETWORKS["regression"]
    unit = np.float32(2.0**power)
    scaled = Mlp(
        [*network.weights[:2], network.weights[2] * unit], [*network.biases[:2], network.biases[2] * unit],
        network.rates,
    )  # fmt: skip
    ours, theirs = (ask(each, MonteCarloOptions(50)) for each in (network, scaled))
    for field in ("mean", "std", "standard_error", "std_standard_error"):
        np.testing.assert_allclose(getattr(theirs, field) / unit, getattr(ours, field), rtol=1e-4)


def test_small_requests_without_a_seed_are_answered_here_and_others_are_not(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    engine = engine_of(NETWORKS["softmax"].onnx())
    assert engine.together(1, MonteCarloOptions(20)) is None, "not before it is prepared"
    engine.prepare_small(X)
    assert engine.small is not None
    answer = engine.small.run
    asked: list[int] = []

    def run(features: Sequence[Array], options: MonteCarloOptions) -> list[Prediction]:
        asked.append(len(features))
        return answer(features, options)

    monkeypatch.setattr(engine.small, "run", run)
    engine.run(X, MonteCarloOptions(20))
    assert asked == [1]
    engine.run(X, MonteCarloOptions(20, seed=1))
    engine.run(X, MonteCarloOptions(20, mean_tolerance=0.1))
    engine.run(X.repeat(1000, axis=0), MonteCarloOptions(20))
    engine.run(X[:1], MonteCarloOptions(100_000))
    assert asked == [1]


def test_a_graph_that_can_not_be_made_or_answers_otherwise_is_done_without(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    network = NETWORKS["softmax"]
    wrong = Mlp([network.weights[0] * 2, *network.weights[1:]], network.biases, network.rates, "Softmax")
    other = engine_of(wrong.onnx()).program
    for build in (
        lambda *_, **options: right(other, engine_of(wrong.onnx()).plan, **options),
        lambda *_, **__: b"not a graph",
    ):
        caplog.clear()
        monkeypatch.setattr(requests, "build", build)
        engine = engine_of(network.onnx())
        with caplog.at_level(logging.WARNING):
            engine.prepare_small(X)
        assert engine.small is None
        assert "small requests are computed like large ones" in caplog.text
        assert engine.run(X, MonteCarloOptions(20)).mean.shape == (7, 3)
        answers = engine.run_together([X, X], MonteCarloOptions(20))
        assert [len(answer.mean) for answer in answers] == [7, 7]


def test_many_threads_ask_at_once() -> None:
    model = model_of(NETWORKS["softmax"].onnx())
    truth = model.predict(X, passes=5000, seed=1)
    assert truth.std is not None
    # Of as many independent passes: the bound must not depend on an answer's own few strata.
    most = 6.0 * truth.std / np.sqrt(40) + 0.01
    with ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(lambda _: model.predict(X, passes=40), range(200)))
    for answer in answers:
        assert (np.abs(answer.mean - truth.mean) < most).all()
    assert len({answer.mean.tobytes() for answer in answers}) > 20
