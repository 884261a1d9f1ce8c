from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, get_args

import numpy as np
import onnx
import pytest
import torch
from numpy.typing import NDArray
from onnx import numpy_helper

from dropserve_models.errors import ExportError
from dropserve_models.prediction import Task
from dropserve_models.training.config import Activation
from dropserve_models.training.encoding import Encoding
from dropserve_models.training.export import OPSET, TOLERANCE, export, relative_difference, run, verify
from dropserve_models.training.layout import Layout
from dropserve_models.training.losses import CrossEntropy, GaussianNoise, Objective, SquaredError
from dropserve_models.training.network import Network
from dropserve_models.training.pipeline import Pipeline
from dropserve_models.training.standardise import Scaling

RANDOM = np.random.default_rng(0)
FEATURES = (RANDOM.normal(size=(200, 5)) * [1, 10, 1e-3, 1, 1e3] + [0, 5, 0, 1e6, -1e4]).astype(np.float32)
TARGETS = RANDOM.normal(size=(200, 3)) * [1, 1e-4, 1e5] + [0, 1, -1e6]

LIMIT = 3.0
KINDS: dict[str, tuple[Task, Callable[[], Objective], int]] = {
    "binary": ("binary", lambda: CrossEntropy(2), 2),
    "multiclass": ("multiclass", lambda: CrossEntropy(4), 4),
    "mean": ("regression", lambda: SquaredError(1), 1),
    "mean and noise": ("regression", lambda: GaussianNoise(1), 1),
    "three means": ("regression", lambda: SquaredError(3), 3),
    "three means and noises": ("regression", lambda: GaussianNoise(3), 3),
}


def pipeline(
    kind: str,
    activation: Activation = "relu",
    hidden: tuple[int, ...] = (16, 8),
    drop_rates: tuple[float, ...] = (0.1, 0.2, 0.5),
    gain: float = 1.0,
) -> Pipeline:
    task, make, width = KINDS[kind]
    objective = make()
    network = Network((5, *hidden, objective.outputs), activation)
    network.initialise([np.random.default_rng(1)])
    network.parameters.mul_(gain)
    for bias in network.biases:
        bias.normal_(std=0.5, generator=torch.Generator().manual_seed(2))
    return Pipeline(
        task=task,
        feature_names=tuple("abcde"),
        output_names=tuple(f"out_{i}" for i in range(width)),
        encoding=Encoding.of(FEATURES, Layout.of((), 5, limit=LIMIT)),
        target_scaling=Scaling.of(TARGETS[:, :width]) if task == "regression" else None,
        network=network,
        drop_rates=drop_rates,
        objective=objective,
    )


def reference(trained: Pipeline) -> dict[str, NDArray[np.float64]]:
    """The same arithmetic, written out in float64."""
    x = (FEATURES - trained.encoding.scaling.mean.astype(float)) / trained.encoding.scaling.std
    x = x / np.sqrt(1 + (x / LIMIT) ** 2)
    functions: dict[Activation, Callable[[torch.Tensor], torch.Tensor]] = {
        "relu": lambda z: z.clamp(min=0),
        "leaky_relu": lambda z: torch.where(z > 0, z, 0.01 * z),
        "tanh": torch.tanh,
        "gelu": lambda z: z * (1 + torch.erf(z / 2**0.5)) / 2,
        "silu": lambda z: z / (1 + torch.exp(-z)),
    }
    z = torch.from_numpy(x)
    layers = list(zip(trained.network.weights, trained.network.biases, strict=True))
    for index, (weight, bias) in enumerate(layers):
        z = z @ weight[0].T.double() + bias[0].double()
        if index < len(layers) - 1:
            z = functions[trained.network.activation](z)
    outputs = z.numpy()
    if trained.target_scaling is None:
        exponentials = np.exp(outputs - outputs.max(axis=1, keepdims=True))
        return {"probabilities": exponentials / exponentials.sum(axis=1, keepdims=True)}
    mean, std = trained.target_scaling.mean.astype(float), trained.target_scaling.std.astype(float)
    width = len(mean)
    answers = {"mean": outputs[:, :width] * std + mean}
    if outputs.shape[1] > width:
        answers["noise_variance"] = np.exp(np.clip(outputs[:, width:], -14, 14)) * std**2
    return answers


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("activation", get_args(Activation))
def test_the_graph_computes_what_the_network_does(kind: str, activation: Activation) -> None:
    trained = pipeline(kind, activation)
    model_bytes = export(trained)
    assert verify(model_bytes, trained, FEATURES) <= TOLERANCE
    found, expected = run(model_bytes, FEATURES), reference(trained)
    assert found.keys() == expected.keys()
    for name, answers in expected.items():
        assert found[name].dtype == np.float32
        assert found[name].shape == answers.shape
        assert relative_difference(found[name], answers) < 1e-4


def test_the_contract_of_the_graph() -> None:
    model = onnx.load_model_from_string(export(pipeline("three means and noises")))
    onnx.checker.check_model(model, full_check=True)
    assert [(opset.domain, opset.version) for opset in model.opset_import] == [("", OPSET)]
    dimensions = {
        value.name: [d.dim_param or d.dim_value for d in value.type.tensor_type.shape.dim]
        for value in (*model.graph.input, *model.graph.output)
    }
    assert dimensions == {"features": ["rows", 5], "mean": ["rows", 3], "noise_variance": ["rows", 3]}
    constants = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    dropouts = [node for node in model.graph.node if node.op_type == "Dropout"]
    assert [node.name for node in dropouts] == ["input/Dropout", "hidden_1/Dropout", "hidden_2/Dropout"]
    assert [float(constants[node.input[1]]) for node in dropouts] == pytest.approx([0.1, 0.2, 0.5])
    assert not any(constants[node.input[2]] for node in dropouts)
    names = [node.name for node in model.graph.node]
    assert len(set(names)) == len(names)


def test_no_dropout_node_stands_for_a_rate_of_zero() -> None:
    model = onnx.load_model_from_string(export(pipeline("binary", drop_rates=(0.0, 0.5, 0.0))))
    assert [node.name for node in model.graph.node if node.op_type == "Dropout"] == ["hidden_1/Dropout"]


@pytest.mark.parametrize("kind", ["binary", "mean and noise"])
def test_a_linear_model(kind: str) -> None:
    trained = pipeline(kind, hidden=(), drop_rates=(0.5,))
    assert verify(export(trained), trained, FEATURES) <= TOLERANCE


def test_one_row_and_none() -> None:
    model_bytes = export(pipeline("mean and noise"))
    assert run(model_bytes, FEATURES[:1])["mean"].shape == (1, 1)
    assert run(model_bytes, FEATURES[:0])["mean"].shape == (0, 1)


def test_probabilities_of_both_classes_add_up() -> None:
    found = run(export(pipeline("binary")), FEATURES)["probabilities"]
    np.testing.assert_allclose(found.sum(axis=1), 1, rtol=1e-6)


def test_extreme_answers_stay_finite() -> None:
    trained = pipeline("mean and noise", gain=100.0)
    found = run(export(trained), FEATURES)
    assert np.isfinite(found["noise_variance"]).all()
    assert (found["noise_variance"] > 0).all()


def test_a_network_that_changed_since_is_refused() -> None:
    trained = pipeline("mean")
    model_bytes = export(trained)
    trained.network.biases[2] += 3e-5  # in standard deviations of the target
    with pytest.raises(ExportError, match=r"differ by \d\.\de-05 relative in 'mean', more than 1e-05"):
        verify(model_bytes, trained, FEATURES)


def test_answers_that_are_not_finite_are_refused() -> None:
    trained = pipeline("mean")
    trained.network.biases[0] += float("nan")
    with pytest.raises(ExportError, match="differ by nan"):
        verify(export(trained), trained, FEATURES)


def test_an_invalid_graph_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: Any, **__: Any) -> None:
        raise onnx.checker.ValidationError("no such thing\nas a long explanation")

    monkeypatch.setattr(onnx.checker, "check_model", broken)
    with pytest.raises(ExportError) as caught:
        export(pipeline("binary"))
    assert str(caught.value) == "the exported graph is not valid: no such thing"


def test_drop_rates_of_the_manifest_are_told_by_the_pipeline() -> None:
    trained = dataclasses.replace(pipeline("binary"), drop_rates=(0.0, 0.25, 0.0))
    model = onnx.load_model_from_string(export(trained))
    ratios = {
        t.name: float(numpy_helper.to_array(t))
        for t in model.graph.initializer
        if t.name.endswith("drop_rate")
    }
    assert ratios == {"hidden_1/drop_rate": 0.25}


@pytest.mark.parametrize(
    ("found", "expected", "difference"),
    [
        ([[1.0], [2.0]], [[1.0], [2.0]], 0.0),
        ([[1e6 + 1], [1e6]], [[1e6], [1e6]], 1e-6),  # relative to the value where that is larger
        ([[0.1], [2.0], [-2.0]], [[0.0], [2.0], [-2.0]], 0.1 / np.std([0, 2, -2])),  # else to the spread
        ([[5.0], [5.0]], [[0.0], [0.0]], 5.0),  # no scale at all: absolute
        ([[np.nan]], [[1.0]], np.nan),
    ],
)
def test_relative_difference(found: Any, expected: Any, difference: float) -> None:
    result = relative_difference(np.array(found), np.array(expected))
    assert result == pytest.approx(difference, nan_ok=True)
