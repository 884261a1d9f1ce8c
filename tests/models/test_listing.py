"""What lies in a repository, by names and signatures."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from dropserve_models.errors import ArtifactError
from dropserve_models.listing import find_version, list_models, list_versions, signature


@pytest.fixture
def version(tmp_path: Path) -> Path:
    folder = tmp_path / "repository" / "m" / "3"
    folder.mkdir(parents=True)
    (folder / "model.onnx").write_bytes(b"one")
    return folder


def test_models_and_versions_are_folders_of_proper_names(version: Path) -> None:
    model = version.parent
    for name in ("10", "2", "01", "0", ".publish-5", "notes"):
        (model / name).mkdir()
    (model / "4").write_text("a file")
    assert list_versions(model) == [2, 3, 10]
    repository = model.parent
    for name in (".hidden", "empty", "wrong name"):
        (repository / name / "1").mkdir(parents=True)
    (repository / "empty" / "1").rmdir()
    (repository / "file").write_text("")
    assert list_models(repository) == ["m"]


def test_what_is_not_there(tmp_path: Path) -> None:
    assert list_versions(tmp_path / "model") == []
    with pytest.raises(ArtifactError, match="can't list the repository"):
        list_models(tmp_path / "repository")


def test_a_model_that_can_not_be_listed_hides_no_other(
    version: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    repository = version.parent.parent
    (repository / "locked" / "1").mkdir(parents=True)
    real = os.scandir

    def scandir(path: Path) -> object:
        if Path(path).name == "locked":
            raise PermissionError(13, "Permission denied")
        return real(path)

    monkeypatch.setattr(os, "scandir", scandir)
    assert list_models(repository) == ["locked", "m"]
    with pytest.raises(ArtifactError, match=r"can't list .*locked: Permission denied"):
        list_versions(repository / "locked")


def test_a_signature_changes_with_the_folder_and_with_nothing_else(version: Path) -> None:
    seen = [signature(version)]
    assert signature(version) == seen[0]
    file = version / "model.onnx"
    file.write_bytes(b"three")  # another size
    seen.append(signature(version))
    os.utime(file, ns=(1, 1))  # rewritten at another time
    seen.append(signature(version))
    (version / ".model.onnx.part").touch()  # somebody is copying
    seen.append(signature(version))
    (version / ".model.onnx.part").replace(file)
    seen.append(signature(version))
    file.unlink()
    seen.append(signature(version))
    version.rmdir()
    seen.append(signature(version))
    assert len(set(seen)) == len(seen)


def test_a_link_to_another_file_is_a_change(version: Path) -> None:
    """Scenario: Kubernetes replaces the folder that a volume's files are linked from."""
    for revision in ("..1", "..2"):
        (version / revision).mkdir()
        (version / revision / "model.onnx").write_bytes(b"one")
        os.utime(version / revision / "model.onnx", ns=(1, 1))
    (version / "model.onnx").unlink()
    (version / "..data").symlink_to("..1")
    (version / "model.onnx").symlink_to("..data/model.onnx")
    before = signature(version)
    (version / "..new").symlink_to("..2")
    (version / "..new").replace(version / "..data")
    assert signature(version) != before
    (version / "..data").unlink()
    assert ("model.onnx", 0, 0, 0) in signature(version)


def test_a_version_or_the_latest_one(tmp_path: Path) -> None:
    for version in ("2", "10"):
        (tmp_path / "model" / version).mkdir(parents=True)
    assert find_version(tmp_path / "model" / "2") == tmp_path / "model" / "2"
    assert find_version(tmp_path / "model") == tmp_path / "model" / "10"
    for wrong in (tmp_path, tmp_path / "model" / "3", tmp_path / "none"):
        with pytest.raises(ArtifactError, match=r"there is no model in .*: give REPOSITORY/MODEL/VERSION"):
            find_version(wrong)
    (tmp_path / "3" / "1").mkdir(parents=True)  # a model may be called by a number
    assert find_version(tmp_path / "3") == tmp_path / "3" / "1"
