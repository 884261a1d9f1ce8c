"""Artifacts made to do harm: each is refused at once, in one line, and nothing of theirs is carried out."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from dropserve_models import load
from dropserve_models.artifact import open_artifact
from dropserve_models.errors import ArtifactError
from support.onnx_models import mlp, publish

MLP = mlp([4, 8, 2], [0.1, 0.3]).onnx()
SECONDS = 5.0  # far more than any of these refusals takes


def refused(folder: Path, **options: int) -> str:
    started = time.monotonic()
    with pytest.raises(ArtifactError) as caught:
        load(folder, device="cpu", **options)
    assert time.monotonic() - started < SECONDS
    message = str(caught.value)
    assert "\n" not in message
    assert len(message) < 1000
    return message


def graph_model(nodes: list[Any], initializers: list[Any] = [], **options: Any) -> onnx.ModelProto:  # noqa: B006
    graph = helper.make_graph(
        nodes,
        "hostile",
        [helper.make_tensor_value_info("features", TensorProto.FLOAT, ["rows", 2])],
        [helper.make_tensor_value_info("mean", TensorProto.FLOAT, None)],
        initializers,
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8, **options)


def made_of_a_shape(op: str, sizes: list[int], *before: str) -> onnx.ModelProto:
    """`op` makes something as large as the constant `shape` says."""
    shape = numpy_helper.from_array(np.array(sizes, np.int64), "shape")
    return graph_model(
        [
            helper.make_node(op, [*before, "shape"], ["huge"]),
            helper.make_node("ReduceSum", ["huge"], ["sum"], keepdims=0),
            helper.make_node("Add", ["features", "sum"], ["mean"]),
        ],
        [shape],
    )


def initializer_of(change: Callable[[Any], None]) -> onnx.ModelProto:
    model = onnx.load_from_string(MLP)
    change(next(tensor for tensor in model.graph.initializer if tensor.name == "weight_0"))
    return model


def wide_input() -> onnx.ModelProto:
    model = onnx.load_from_string(MLP)
    model.graph.input[0].type.tensor_type.shape.dim[1].dim_value = 2**40
    return model


def typed_initializer(tensor: Any) -> None:
    tensor.ClearField("raw_data")
    tensor.float_data.extend([1.0, 2.0])
    tensor.dims[:] = [2**31, 2**31]


def sparse_initializer() -> onnx.ModelProto:
    values = helper.make_tensor("sparse", TensorProto.FLOAT, [1], [1.0])
    indices = helper.make_tensor("indices", TensorProto.INT64, [1], [0])
    model = graph_model([helper.make_node("MatMul", ["features", "sparse"], ["mean"])])
    model.graph.sparse_initializer.append(helper.make_sparse_tensor(values, indices, [2**30, 2**30]))
    return model


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (
            initializer_of(lambda t: t.dims.__setitem__(0, 2**40)),
            "declares 1099511627776 x 8, which",
        ),
        (initializer_of(lambda t: t.dims.__setitem__(0, -4)), "'weight_0' declares -4 x 8, which is not"),
        (
            initializer_of(lambda t: t.dims.__setitem__(0, 3)),
            "'weight_0' declares 3 x 8, which is not",
        ),
        (initializer_of(typed_initializer), "which is not what it holds"),
        (wide_input(), "'features' declares 1 x 1099511627776, more than 256 MiB a row"),
        (sparse_initializer(), "a sparse tensor declares 1073741824 x 1073741824"),
        (
            made_of_a_shape("ConstantOfShape", [2**20, 2**20]),
            "'huge' declares 1048576 x 1048576, more than 256 MiB a row",
        ),
        (made_of_a_shape("Expand", [2**40, 1, 1], "features"), "'huge' declares 1099511627776 x 1 x 2"),
        (made_of_a_shape("Tile", [1, 2**40], "features"), "'huge' declares 1 x 2199023255552"),
    ],
    ids=["dims", "negative", "fewer", "typed", "input", "sparse", "ConstantOfShape", "Expand", "Tile"],
)
def test_huge_declared_shapes(tmp_path: Path, model: onnx.ModelProto, message: str) -> None:
    assert message in refused(publish(tmp_path, "m", model.SerializeToString()))


def test_more_nodes_than_any_network_has(tmp_path: Path) -> None:
    names = ["features", *(f"value_{i}" for i in range(10_001)), "mean"]
    chain = [helper.make_node("Relu", [a], [b]) for a, b in itertools.pairwise(names)]
    assert "more than 10,000 nodes" in refused(publish(tmp_path, "m", graph_model(chain).SerializeToString()))


def function(name: str, calls: str, times: int) -> onnx.FunctionProto:
    values = ["x", *(f"v{i}" for i in range(times - 1)), "y"]
    domain = "" if calls == "Relu" else "hostile"
    nodes = [helper.make_node(calls, [a], [b], domain=domain) for a, b in itertools.pairwise(values)]
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("hostile", 1)]
    return helper.make_function("hostile", name, ["x"], ["y"], nodes, opsets)


@pytest.mark.parametrize(
    ("functions", "message"),
    [
        (
            [*(function(f"f{i}", f"f{i + 1}", 10) for i in range(20)), function("f20", "Relu", 10)],
            "10,000 nodes",
        ),
        ([function("f0", "f1", 1), function("f1", "f0", 1)], "in a circle"),
        ([function(f"f{i}", f"f{i + 1}" if i < 500 else "Relu", 1) for i in range(501)], "64 deep"),
    ],
    ids=["a billion laughs", "a circle", "a long chain"],
)
def test_functions_that_grow_when_they_are_inlined(
    tmp_path: Path, functions: list[onnx.FunctionProto], message: str
) -> None:
    model = graph_model(
        [helper.make_node("f0", ["features"], ["mean"], domain="hostile")], functions=functions
    )
    model.opset_import.append(helper.make_opsetid("hostile", 1))
    assert message in refused(publish(tmp_path, "m", model.SerializeToString()))


def test_graphs_nested_without_end(tmp_path: Path) -> None:
    graph = b""
    for _ in range(10_000):  # a graph of one node with one attribute that is a graph
        for field in (6, 5, 1):
            graph = bytes([field << 3 | 2]) + _varint(len(graph)) + graph
    data = bytes([7 << 3 | 2]) + _varint(len(graph)) + graph
    assert "it can't be parsed" in refused(publish(tmp_path, "m", data))


def _varint(number: int) -> bytes:
    digits = bytearray()
    while number > 127:
        digits.append(number & 127 | 128)
        number >>= 7
    return bytes([*digits, number])


def test_larger_than_allowed(tmp_path: Path) -> None:
    folder = publish(tmp_path, "m", MLP)
    assert f"larger than the {len(MLP) - 1} bytes allowed" in refused(folder, max_bytes=len(MLP) - 1)
    assert load(folder, device="cpu", max_bytes=len(MLP)).info.name == "m"


def test_weights_in_other_files_count(tmp_path: Path) -> None:
    model = onnx.load_from_string(MLP)
    tensor = next(tensor for tensor in model.graph.initializer if tensor.name == "weight_0")
    weights = tensor.raw_data
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="weights.bin")
    data = model.SerializeToString()
    folder = publish(tmp_path, "m", data)
    (folder / "weights.bin").write_bytes(weights)
    assert "more than the model may have in all" in refused(folder, max_bytes=len(data) + len(weights) // 2)
    assert load(folder, device="cpu", max_bytes=len(data) + len(weights)).info.name == "m"


def test_long_names_do_not_make_long_messages(tmp_path: Path) -> None:
    model = onnx.load_from_string(MLP)
    for tensor in model.graph.initializer:
        tensor.name = "x\n" * 100_000
    refused(publish(tmp_path, "m", model.SerializeToString()))
    model.graph.initializer[0].data_location = TensorProto.EXTERNAL
    model.graph.initializer[0].external_data.add(key="location", value="../" * 100_000)
    refused(publish(tmp_path, "n", model.SerializeToString()))


def test_links_out_of_the_repository(tmp_path: Path) -> None:
    publish(tmp_path / "elsewhere", "m", MLP)
    repository = tmp_path / "repository"
    (repository / "version").mkdir(parents=True)
    (repository / "version" / "1").symlink_to(tmp_path / "elsewhere" / "m" / "1")
    (repository / "model").symlink_to(tmp_path / "elsewhere" / "m")
    for name in ("version", "model"):
        assert "it is a link out of the repository" in refused(repository / name / "1")


def test_links_within_the_repository_are_followed_and_so_is_one_to_it(tmp_path: Path) -> None:
    """Scenario: git-sync and Kubernetes exchange what a link leads to."""
    publish(tmp_path / "..2026", "m", MLP)
    (tmp_path / "..data").symlink_to("..2026")
    (tmp_path / "m").symlink_to("..data/m")
    assert open_artifact(tmp_path / "m" / "1").name == "m"
    (tmp_path / "current").symlink_to("..2026")
    assert open_artifact(tmp_path / "current" / "m" / "1").name == "m"


@pytest.mark.parametrize(
    "manifest",
    [
        b"",
        b"\xff\xfe{}",
        '{"task": "regression"}'.encode("utf-16"),
        b"[" * 100_000,
        b'{"schema_version": ' + b"9" * 10_000 + b"}",
        b'{"task": "regression", "feature_names": [' + b'"a",' * 3 + b'"\xe4"]}',
        b'{"task": "' + b"x" * 100_000 + b'"}',
    ],
    ids=["empty", "not UTF-8", "UTF-16", "deep", "long number", "Latin-1", "long text"],
)
def test_manifests_that_are_none(tmp_path: Path, manifest: bytes) -> None:
    folder = publish(tmp_path, "m", MLP)
    (folder / "manifest.json").write_bytes(manifest)
    assert refused(folder).startswith(f"{folder}/manifest.json is ")


def test_a_manifest_that_is_too_large_is_not_read(tmp_path: Path) -> None:
    folder = publish(tmp_path, "m", MLP)
    with (folder / "manifest.json").open("wb") as file:
        file.truncate(2**40)  # of holes
    assert "manifest.json is larger than the 16777216 bytes allowed" in refused(folder)


def test_what_nobody_foresaw_is_told_in_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise ZeroDivisionError("a\nb")

    monkeypatch.setattr("dropserve_models.model.draw_up", fail)
    assert "model.onnx is malformed: ZeroDivisionError: a b" in refused(publish(tmp_path, "m", MLP))
