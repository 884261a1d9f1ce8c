from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from dropserve_models.artifact import MAX_MODEL_BYTES, check_model_name, open_artifact
from dropserve_models.errors import ArtifactError
from dropserve_models.manifest import Manifest, sha256_of

WEIGHT = np.arange(6, dtype=np.float32).reshape(2, 3)


def linear_model() -> onnx.ModelProto:
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["features", "weight"], ["mean"])],
        "linear",
        [helper.make_tensor_value_info("features", TensorProto.FLOAT, ["rows", 2])],
        [helper.make_tensor_value_info("mean", TensorProto.FLOAT, ["rows", 3])],
        initializer=[numpy_helper.from_array(WEIGHT, "weight")],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])


def external_model(location: str, **entries: str) -> bytes:
    model = linear_model()
    tensor = model.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    for key, value in {"location": location, **entries}.items():
        tensor.external_data.add(key=key, value=value)
    return model.SerializeToString()


def manifest_of(model_bytes: bytes) -> bytes:
    return Manifest(
        task="regression",
        feature_names=("a", "b"),
        output_names=("x", "y", "z"),
        drop_rates=(),
        predicts_noise=False,
        sha256=sha256_of(model_bytes),
    ).to_json()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    path = tmp_path / "repository" / "linear" / "3"
    path.mkdir(parents=True)
    (path / "model.onnx").write_bytes(linear_model().SerializeToString())
    return path


def refused(folder: Path) -> str:
    with pytest.raises(ArtifactError) as caught:
        open_artifact(folder)
    message = str(caught.value)
    assert "\n" not in message
    return message


def test_a_lone_model_is_opened(folder: Path) -> None:
    artifact = open_artifact(folder)
    assert (artifact.name, artifact.version, artifact.manifest) == ("linear", 3, None)
    assert artifact.model_bytes == (folder / "model.onnx").read_bytes()


def test_a_relative_folder_knows_its_name(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    artifact = open_artifact(".")
    assert (artifact.name, artifact.version, artifact.folder) == ("linear", 3, folder)


def test_the_manifest_is_read_and_its_digest_checked(folder: Path) -> None:
    (folder / "manifest.json").write_bytes(manifest_of((folder / "model.onnx").read_bytes()))
    artifact = open_artifact(folder)
    assert artifact.manifest is not None
    assert artifact.manifest.output_names == ("x", "y", "z")

    data = bytearray((folder / "model.onnx").read_bytes())
    data[-1] ^= 1
    (folder / "model.onnx").write_bytes(data)
    assert "SHA-256 differs" in refused(folder)


def test_a_dangling_manifest_is_not_taken_for_none(folder: Path) -> None:
    (folder / "manifest.json").symlink_to("nowhere.json")
    assert "manifest.json" in refused(folder)


def test_missing_model(folder: Path) -> None:
    (folder / "model.onnx").unlink()
    assert refused(folder) == f"there is no {folder / 'model.onnx'}"


def test_missing_folder(folder: Path) -> None:
    assert "there is no folder" in refused(folder.parent / "4")


@pytest.mark.parametrize("version", ["0", "01", "-1", "latest", "1.0", "²", ".publish-1"])
def test_versions_are_positive_integers(folder: Path, version: str) -> None:
    renamed = folder.rename(folder.parent / version)
    assert "the version is a positive integer" in refused(renamed)


@pytest.mark.parametrize("content", [b"", b"not a model", b"\x08\x07", b"\x00" * 64])
def test_what_is_no_onnx_model(folder: Path, content: bytes) -> None:
    (folder / "model.onnx").write_bytes(content)
    assert "damaged or no ONNX model" in refused(folder)


def test_a_truncated_model(folder: Path) -> None:
    data = (folder / "model.onnx").read_bytes()
    (folder / "model.onnx").write_bytes(data[: len(data) // 2])
    assert "damaged or no ONNX model" in refused(folder)


def test_an_oversize_model_is_refused_without_reading_it_whole(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert MAX_MODEL_BYTES == 2**31 - 1
    monkeypatch.setattr("dropserve_models.artifact.MAX_MODEL_BYTES", 10)
    assert "larger than the 10 bytes allowed" in refused(folder)


def test_not_a_regular_file(folder: Path) -> None:
    (folder / "model.onnx").unlink()
    (folder / "model.onnx").mkdir()
    assert "not a regular file" in refused(folder)


def test_a_link_within_the_folder_is_followed_and_one_out_of_it_refused(folder: Path) -> None:
    (folder / "data").mkdir()
    (folder / "model.onnx").rename(folder / "data" / "model.onnx")
    (folder / "model.onnx").symlink_to("data/model.onnx")  # as Kubernetes mounts files
    assert open_artifact(folder).version == 3

    (folder / "data" / "model.onnx").rename(folder.parent / "model.onnx")
    (folder / "model.onnx").unlink()
    (folder / "model.onnx").symlink_to("../model.onnx")
    assert "link to a file outside its folder" in refused(folder)


@pytest.mark.parametrize(("padding", "entries"), [(0, {}), (8, {"offset": "8", "length": "24"})])
def test_external_data_within_the_folder_is_read_in(
    folder: Path, padding: int, entries: dict[str, str]
) -> None:
    (folder / "weights.bin").write_bytes(bytes(padding) + WEIGHT.tobytes())
    (folder / "model.onnx").write_bytes(external_model("weights.bin", **entries))
    model = onnx.load_model_from_string(open_artifact(folder).model_bytes)
    np.testing.assert_array_equal(numpy_helper.to_array(model.graph.initializer[0]), WEIGHT)


@pytest.mark.parametrize(
    "location", ["../weights.bin", "{parent}/weights.bin", "link.bin", "sub/../../weights.bin", ""]
)
def test_external_data_outside_the_folder_is_refused(folder: Path, location: str) -> None:
    (folder.parent / "weights.bin").write_bytes(WEIGHT.tobytes())
    (folder / "link.bin").symlink_to("../weights.bin")
    (folder / "model.onnx").write_bytes(external_model(location.format(parent=folder.parent)))
    assert "outside" in refused(folder)


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        ({"length": "25"}, "ends 1 bytes too early"),
        ({"offset": "-1"}, "not a part"),
        ({"length": "-1"}, "not a part"),
        ({"length": "many"}, "many"),
        ({"length": str(2**40)}, "more than the model may have"),
    ],
)
def test_external_data_of_a_wrong_extent(folder: Path, entries: dict[str, str], message: str) -> None:
    (folder / "weights.bin").write_bytes(WEIGHT.tobytes())
    (folder / "model.onnx").write_bytes(external_model("weights.bin", **entries))
    assert message in refused(folder)


def test_missing_external_data(folder: Path) -> None:
    (folder / "model.onnx").write_bytes(external_model("weights.bin"))
    assert "can't read the data of tensor 'weight'" in refused(folder)


def test_external_data_in_a_nested_attribute_is_found(folder: Path) -> None:
    model = linear_model()
    constant = helper.make_node("Constant", [], ["c"], value=numpy_helper.from_array(WEIGHT, "nested"))
    tensor = constant.attribute[0].t
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="/etc/passwd")
    branch = helper.make_graph([constant], "branch", [], [])
    model.graph.node.append(helper.make_node("If", ["x"], ["y"], then_branch=branch, else_branch=branch))
    (folder / "model.onnx").write_bytes(model.SerializeToString())
    assert "tensor 'nested' has its data at '/etc/passwd', outside" in refused(folder)


def test_external_data_escapes_no_digest(folder: Path) -> None:
    data = external_model("weights.bin")
    (folder / "weights.bin").write_bytes(WEIGHT.tobytes())
    (folder / "model.onnx").write_bytes(data)
    (folder / "manifest.json").write_bytes(manifest_of(data))
    assert "digest does not cover" in refused(folder)


@pytest.mark.parametrize("name", ["a", "Model-1_b.c", "_", "-x", "9", "x" * 128])
def test_names(name: str) -> None:
    assert check_model_name(name) == name


@pytest.mark.parametrize("name", ["", ".", "..", ".a", "a/b", "a b", "ä", "x" * 129, "a\n", "a\0", "a\\b"])
def test_names_that_can_not_be(name: str) -> None:
    with pytest.raises(ArtifactError, match="can't be a model's name"):
        check_model_name(name)
