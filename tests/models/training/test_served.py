"""Whatever the trainer can export, the engine serves: deterministic, and pass by pass with dropout on."""

from __future__ import annotations

from itertools import cycle, product
from typing import Any, get_args

import numpy as np
import pytest
import torch

from dropserve_models.inference import engine as engines
from dropserve_models.prediction import MonteCarloOptions, Task
from dropserve_models.training.config import Activation, Norm
from dropserve_models.training.export import export, verify
from dropserve_models.training.losses import CrossEntropy, GaussianNoise, Objective, SquaredError
from dropserve_models.training.network import Network
from dropserve_models.training.pipeline import Pipeline
from dropserve_models.training.standardise import Scaling
from support.engines import Array, model_of

RANDOM = np.random.default_rng(0)
FEATURES: Array = (RANDOM.normal(size=(40, 3)) * [1, 10, 1e3] + [0, 5, -1e4]).astype(np.float32)
OBJECTIVES: dict[str, tuple[Task, Objective]] = {
    "multiclass": ("multiclass", CrossEntropy(3)),
    "mean": ("regression", SquaredError(1)),
    "means and noises": ("regression", GaussianNoise(2)),
}
SHAPES = {
    "linear": ((), (0.4,)),
    "hidden": ((6, 6), (0.0, 0.2, 0.5)),
    "input and hidden": ((6, 6, 5, 5), (0.1, 0.5, 0.0, 0.2, 0.3)),
    "not the last": ((6, 6, 6), (0.0, 0.5, 0.3, 0.0)),
    "input alone": ((6, 6), (0.3, 0.0, 0.0)),
}
PASSES = 4


def pipeline(task: Task, objective: Objective, shape: str, **options: Any) -> Pipeline:
    hidden, rates = SHAPES[shape]
    network = Network((3, *hidden, objective.outputs), **options)
    network.initialise([np.random.default_rng(1)])
    random = torch.Generator().manual_seed(2)
    changed = network.parameters + 0.3 * torch.randn(network.parameters.shape, generator=random).abs()
    network = network.holding(changed)  # no bias, scale or running statistic is what it begins with
    width = objective.outputs // 2 if isinstance(objective, GaussianNoise) else objective.outputs
    scaling = Scaling.of(RANDOM.normal(size=(40, width)) * 5 + 20) if task == "regression" else None
    names = tuple(f"out_{number}" for number in range(width))
    return Pipeline(task, ("a", "b", "c"), names, Scaling.of(FEATURES), scaling, network, rates, objective)


COMBINATIONS = [
    # Activations take turns.
    (*combination, activation)
    for combination, activation in zip(
        product(OBJECTIVES, SHAPES, get_args(Norm), (False, True)), cycle(get_args(Activation)), strict=False
    )
]


@pytest.mark.parametrize(("kind", "shape", "norm", "residual", "activation"), COMBINATIONS)
def test_both_modes(
    kind: str,
    shape: str,
    norm: Norm,
    residual: bool,
    activation: Activation,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    trained = pipeline(*OBJECTIVES[kind], shape, activation=activation, norm=norm, residual=residual)
    data = export(trained)
    verify(data, trained, FEATURES)
    model = model_of(data)
    expected = trained.predict(FEATURES)
    prediction = expected["mean" if "mean" in expected else "probabilities"]
    np.testing.assert_allclose(model.predict(FEATURES).mean, prediction, rtol=1e-4, atol=1e-5)
    model.prepare_monte_carlo()  # compares the engine, dropout off, with ONNX Runtime

    engine = vars(model)["_engine"]
    assert [site.rate for site in engine.program.sites] == [rate for rate in trained.drop_rates if rate]
    masks = []
    for site in engine.program.sites:
        kept = np.random.default_rng(site.units).random((PASSES, site.units)) > site.rate
        masks.append((kept / (1.0 - site.rate)).astype(np.float32))
    for found, reference in zip(engine.passes(FEATURES, masks), _passes(trained, masks), strict=True):
        np.testing.assert_allclose(found, reference, rtol=1e-3, atol=1e-4)

    for options in (MonteCarloOptions(20, 3), MonteCarloOptions(20, 3, return_samples=True)):
        answers = []
        for work in (0, 10**12):
            monkeypatch.setattr(engines, "THINNED_WORK", work)
            answers.append(engine.run(FEATURES, options))
        for name in ("mean", "variance", "samples", "aleatoric_variance", "noise_samples"):
            thinned, plain = (getattr(answer, name) for answer in answers)
            if plain is not None:
                np.testing.assert_allclose(thinned, plain, rtol=2e-3, atol=1e-4)


def _passes(trained: Pipeline, masks: list[Array]) -> list[Array]:
    """What the network itself says under these masks, [passes, rows, outputs] for each head."""
    given = iter(masks)
    rates = trained.drop_rates
    every = [next(given) if rate else None for rate in rates]
    x = torch.from_numpy(trained.feature_scaling.apply(FEATURES)).unsqueeze(0)
    heads: list[list[Array]] = []
    for number in range(PASSES):
        each = [None if mask is None else torch.from_numpy(mask[number]) for mask in every]
        outputs = trained.network.forward(x, each)[0]
        heads.append(list(trained.answers(outputs).values()))
    return [np.stack(values) for values in zip(*heads, strict=True)]
