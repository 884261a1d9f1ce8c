"""Graphs that a model can't be loaded from."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnx
import pytest
from onnx import numpy_helper

from dropserve_models import load
from dropserve_models.artifact import Artifact
from dropserve_models.errors import ArtifactError
from dropserve_models.inference.blueprint import draw_up
from dropserve_models.manifest import Manifest, sha256_of
from dropserve_models.model import Model
from dropserve_models.prediction import Task
from support.onnx_models import mlp, publish

CLASSIFIER = mlp([6, 20, 20, 3], [0.0, 0.2, 0.5], last="Softmax").onnx()
REGRESSION = mlp([6, 20, 20, 2], [0.1, 0.2, 0.5]).onnx()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda made: made.ClearField("graph"), "output"),
        (
            lambda made: made.graph.node[0].__setattr__("op_type", "Frobnicate"),
            "ONNX Runtime refuses the model",
        ),
        (
            lambda made: made.graph.input[0].type.tensor_type.__setattr__("elem_type", 11),
            "ONNX Runtime refuses",
        ),
    ],
    ids=["empty", "unknown operation", "float64 input"],
)
def test_graphs_that_can_not_be_run_are_refused(
    change: Callable[[Any], None], message: str, tmp_path: Path
) -> None:
    made = onnx.load_from_string(REGRESSION)
    change(made)
    with pytest.raises(ArtifactError, match=message) as caught:
        load(publish(tmp_path, "broken", made.SerializeToString()))
    assert "\n" not in str(caught.value)


def test_a_model_exported_for_a_fixed_number_of_rows_is_refused(tmp_path: Path) -> None:
    made = onnx.load_from_string(REGRESSION)
    made.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 1
    with pytest.raises(
        ArtifactError, match=r"takes exactly 1 rows; export it with a dynamic first dimension"
    ):
        load(publish(tmp_path, "fixed", made.SerializeToString()))


def test_a_manifest_must_fit_its_graph() -> None:
    def drawn(task: Task, names: tuple[str, ...], features: int = 6) -> Model:
        manifest = Manifest(
            task=task,
            feature_names=tuple(f"x{number}" for number in range(features)),
            output_names=names,
            drop_rates=(0.2, 0.5),
            predicts_noise=False,
            sha256=sha256_of(CLASSIFIER),
        )
        return Model(draw_up(Artifact(Path("m/1"), "m", 1, CLASSIFIER, manifest), "cpu", 1))

    assert drawn("multiclass", ("a", "b", "c")).info.output_names == ("a", "b", "c")
    for task, names, features in [
        ("multiclass", ("a", "b"), 6),
        ("binary", ("a", "b"), 6),
        ("multiclass", ("a", "b", "c"), 5),
    ]:
        with pytest.raises(ArtifactError, match="the manifest names"):
            drawn(task, names, features)  # type: ignore[arg-type]


def test_a_model_of_two_inputs_is_refused(tmp_path: Path) -> None:
    made = onnx.load_from_string(REGRESSION)
    for tensor in list(made.graph.initializer):
        if tensor.name == "bias_0":
            made.graph.initializer.remove(tensor)
            shape = list(numpy_helper.to_array(tensor).shape)
            made.graph.input.append(onnx.helper.make_tensor_value_info("bias_0", 1, shape))
    with pytest.raises(ArtifactError, match="must have one input"):
        load(publish(tmp_path, "two", made.SerializeToString()))
