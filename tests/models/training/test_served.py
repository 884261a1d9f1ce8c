"""Whatever the trainer can export, the engine serves: deterministic, and pass by pass with dropout on."""

from __future__ import annotations

from dataclasses import asdict
from itertools import product
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
import torch

from dropserve_models.artifact import Artifact
from dropserve_models.columns import Column
from dropserve_models.inference import engine as engines
from dropserve_models.inference.blueprint import draw_up
from dropserve_models.inference.costs import ALWAYS_THINNED, NEVER_THINNED
from dropserve_models.manifest import ColumnRecord, Manifest
from dropserve_models.model import Model
from dropserve_models.prediction import MonteCarloOptions, Task
from dropserve_models.training.config import Activation, Norm
from dropserve_models.training.encoding import Encoding
from dropserve_models.training.export import export, verify
from dropserve_models.training.layout import Layout
from dropserve_models.training.losses import CrossEntropy, GaussianNoise, Objective, SquaredError
from dropserve_models.training.network import Network
from dropserve_models.training.pipeline import Pipeline
from dropserve_models.training.standardise import Scaling
from support.engines import Array

RANDOM = np.random.default_rng(0)
ROWS = 40
NUMBERS = (RANDOM.normal(size=(ROWS, 5)) * [1, 10, 1e3, 1, 1] + [0, 5, -1e4, 0, 0]).astype(np.float32)
CODES = RANDOM.integers(-1, 4, size=(ROWS, 5)).astype(np.float32)
GAPS = np.where(RANDOM.random((ROWS, 5)) < 0.3, np.float32(np.nan), 0)
NUMBER, CATEGORY = Column(), Column("category", ("r", "s", "t", "u"))
GAPPY, GAPPY_CATEGORY = Column("number", (), True), Column("category", ("v", "w"), True)
COLUMNS: dict[str, tuple[tuple[Column, ...], int | None]] = {
    "numbers": ((NUMBER, NUMBER, NUMBER), None),
    "gaps": ((NUMBER, GAPPY, GAPPY), None),
    "one-hot": ((CATEGORY, NUMBER, GAPPY_CATEGORY, NUMBER), 0),
    "embedded, gaps": ((GAPPY, CATEGORY, NUMBER, GAPPY_CATEGORY, CATEGORY), 3),
    "categories alone": ((CATEGORY, GAPPY_CATEGORY), None),
}
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


def features_of(columns: tuple[Column, ...]) -> Array:
    """Rows that the columns accept: numbers, codes known and unknown, and gaps."""
    width = len(columns)
    values = np.where([column.kind == "category" for column in columns], CODES[:, :width], NUMBERS[:, :width])
    gaps = np.where([column.accepts_missing for column in columns], GAPS[:, :width], 0)
    return (values + gaps).astype(np.float32)


def pipeline(task: Task, objective: Objective, shape: str, kind: str, **options: Any) -> Pipeline:
    hidden, rates = SHAPES[shape]
    columns, embedding_width = COLUMNS[kind]
    features = features_of(columns)
    layout = Layout.of(columns, len(columns), embedding_width, limit=4.0 if options["residual"] else 0.0)
    sizes = (layout.inputs, *hidden, objective.outputs)
    network = Network(sizes, embeddings=layout.embeddings, **options)
    network.initialise([np.random.default_rng(1)])
    random = torch.Generator().manual_seed(2)
    changed = network.parameters + 0.3 * torch.randn(network.parameters.shape, generator=random).abs()
    network = network.holding(changed)  # no bias, scale or running statistic is what it begins with
    width = objective.outputs // 2 if isinstance(objective, GaussianNoise) else objective.outputs
    scaling = Scaling.of(RANDOM.normal(size=(40, width)) * 5 + 20) if task == "regression" else None
    # Some categories, and some gaps, are in none of the rows that were learned from.
    encoding = Encoding.of(features[:7], layout)
    names = tuple(f"out_{number}" for number in range(width))
    return Pipeline(task, tuple("abcde"[: len(columns)]), names, encoding, scaling, network, rates, objective)


def manifest(trained: Pipeline, columns: str) -> Manifest:
    return Manifest(
        task=trained.task,
        feature_names=trained.feature_names,
        columns=tuple(ColumnRecord(**asdict(column)) for column in COLUMNS[columns][0]),
        output_names=trained.output_names,
        drop_rates=(),
        predicts_noise=trained.predicts_noise,
        sha256="0" * 64,
    )


COMBINATIONS = [
    # Activations and kinds of columns take turns, so that each meets every other option.
    (*combination, get_args(Activation)[number % 5], tuple(COLUMNS)[(number + number // 5) % 5])
    for number, combination in enumerate(product(OBJECTIVES, SHAPES, get_args(Norm), (False, True)))
]


@pytest.mark.parametrize(("kind", "shape", "norm", "residual", "activation", "columns"), COMBINATIONS)
def test_both_modes(
    kind: str,
    shape: str,
    norm: Norm,
    residual: bool,
    activation: Activation,
    columns: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    trained = pipeline(*OBJECTIVES[kind], shape, columns, activation=activation, norm=norm, residual=residual)
    features = features_of(COLUMNS[columns][0])
    data = export(trained)
    verify(data, trained, features)
    model = Model(
        draw_up(Artifact(Path("memory/model/1"), "model", 1, data, manifest(trained, columns)), "cpu", 1)
    )
    expected = trained.predict(features)
    prediction = expected["mean" if "mean" in expected else "probabilities"]
    np.testing.assert_allclose(model.predict(features).mean, prediction, rtol=1e-4, atol=1e-5)
    model.prepare_monte_carlo()  # compares the engine, dropout off, with ONNX Runtime

    engine = vars(model)["_engine"]
    assert [site.rate for site in engine.program.sites] == [rate for rate in trained.drop_rates if rate]
    masks = []
    for site in engine.program.sites:
        kept = np.random.default_rng(site.units).random((PASSES, site.units)) > site.rate
        masks.append((kept / (1.0 - site.rate)).astype(np.float32))
    for found, reference in zip(
        engine.passes(features, masks), _passes(trained, features, masks), strict=True
    ):
        np.testing.assert_allclose(found, reference, rtol=1e-3, atol=1e-4)

    for options in (MonteCarloOptions(20, 3), MonteCarloOptions(20, 3, return_samples=True)):
        answers = []
        for costs in (ALWAYS_THINNED, NEVER_THINNED):
            monkeypatch.setattr(engines, "CONSTANTS", costs)
            answers.append(engine.run(features, options))
        for name in ("mean", "variance", "samples", "aleatoric_variance", "noise_samples"):
            thinned, plain = (getattr(answer, name) for answer in answers)
            if plain is not None:
                np.testing.assert_allclose(thinned, plain, rtol=2e-3, atol=1e-4)


def _passes(trained: Pipeline, features: Array, masks: list[Array]) -> list[Array]:
    """What the network itself says under these masks, [passes, rows, outputs] for each head."""
    given = iter(masks)
    rates = trained.drop_rates
    every = [next(given) if rate else None for rate in rates]
    x = torch.from_numpy(trained.encoding.apply(features)).unsqueeze(0)
    heads: list[list[Array]] = []
    for number in range(PASSES):
        each = [None if mask is None else torch.from_numpy(mask[number]) for mask in every]
        outputs = trained.network.forward(x, each)[0]
        heads.append(list(trained.answers(outputs).values()))
    return [np.stack(values) for values in zip(*heads, strict=True)]
