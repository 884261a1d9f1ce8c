from __future__ import annotations

import shutil
import subprocess
import sys
import zipfile
from pathlib import Path, PurePosixPath

PACKAGES = {"dropserve", "dropserve_models", "dropserve_server", "dropserve_client"}


def wheel_names(wheel: Path) -> set[str]:
    with zipfile.ZipFile(wheel) as archive:
        return set(archive.namelist())


def test_holds_the_four_packages_and_nothing_else(built: dict[str, Path]) -> None:
    tops = {PurePosixPath(name).parts[0] for name in wheel_names(built["wheel"])}
    assert {top for top in tops if not top.endswith(".dist-info")} == PACKAGES
    assert len(tops) == len(PACKAGES) + 1


def test_every_package_is_typed(built: dict[str, Path]) -> None:
    assert {f"{package}/py.typed" for package in PACKAGES} <= wheel_names(built["wheel"])


def test_holds_the_contract_beside_its_stubs(built: dict[str, Path]) -> None:
    names = wheel_names(built["wheel"])
    protos = {name.removesuffix(".proto") for name in names if name.endswith(".proto")}
    assert protos >= {"dropserve/v1/prediction", "dropserve/v1/model", "dropserve/v1/tensor"}
    assert protos >= {"dropserve/inference/service", "dropserve/inference/model_config"}
    for proto in protos:
        assert {f"{proto}_pb2.py", f"{proto}_pb2.pyi"} <= names
    assert {"dropserve/v1/prediction_pb2_grpc.py", "dropserve/v1/prediction_pb2_grpc.pyi"} <= names


def test_holds_only_sources(built: dict[str, Path]) -> None:
    files = {name for name in wheel_names(built["wheel"]) if ".dist-info/" not in name}
    assert {PurePosixPath(name).suffix for name in files} == {".py", ".pyi", ".proto", ".typed"}


def test_carries_the_licence(built: dict[str, Path]) -> None:
    assert any(name.endswith(".dist-info/licenses/LICENSE") for name in wheel_names(built["wheel"]))


def test_the_sdist_builds_the_same_wheel(built: dict[str, Path], tmp_path: Path) -> None:
    shutil.unpack_archive(built["sdist"], tmp_path)
    (source,) = tmp_path.iterdir()
    build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)]
    subprocess.run(build, cwd=source, check=True, capture_output=True, timeout=60)
    assert (tmp_path / built["wheel"].name).read_bytes() == built["wheel"].read_bytes()
