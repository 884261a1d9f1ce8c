"""The requirements that pip sees: what the stubs need, and which ONNX Runtime goes where."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement
from packaging.version import Version

import dropserve
from dropserve.v1 import prediction_pb2_grpc

STUBS = Path(dropserve.__file__).parent
GENCODE = "6.31.1"


def requirement(project: dict[str, Any], name: str) -> Requirement:
    return next(r for r in map(Requirement, project["dependencies"]) if r.name == name)


def floor(requirement: Requirement) -> Version:
    return next(Version(s.version) for s in requirement.specifier if s.operator == ">=")


@pytest.mark.parametrize("stub", sorted(STUBS.rglob("*_pb2.py")), ids=lambda path: path.name)
def test_the_stubs_run_on_the_oldest_protobuf_allowed(stub: Path, project: dict[str, Any]) -> None:
    found = re.search(r"^# Protobuf Python Version: (\S+)$", stub.read_text("utf-8"), re.MULTILINE)
    assert found is not None
    assert found[1] == GENCODE
    assert floor(requirement(project, "protobuf")) == Version(GENCODE)


def test_the_stubs_run_on_the_oldest_grpcio_allowed(project: dict[str, Any]) -> None:
    assert floor(requirement(project, "grpcio")) == Version(prediction_pb2_grpc.GRPC_GENERATED_VERSION)


# Every gencode is promised to run on its own protobuf major and the next one.
@pytest.mark.parametrize(
    ("version", "allowed"), [("6.31.0", False), ("6.33.6", True), ("7.36.2", True), ("8.0", False)]
)
def test_protobuf_is_kept_within_what_the_gencode_is_promised_to_run_on(
    version: str, allowed: bool, project: dict[str, Any]
) -> None:
    assert requirement(project, "protobuf").specifier.contains(version) is allowed


@pytest.mark.parametrize("extra", ["server", "train"])
@pytest.mark.parametrize(
    ("platform", "machine", "expected"),
    [
        ("linux", "x86_64", "onnxruntime-gpu"),
        ("linux", "aarch64", "onnxruntime"),
        ("win32", "AMD64", "onnxruntime-gpu"),
        ("win32", "ARM64", "onnxruntime"),
        ("darwin", "arm64", "onnxruntime"),
        ("darwin", "x86_64", "onnxruntime"),
    ],
)
def test_one_onnxruntime_is_installed_never_both(
    extra: str, platform: str, machine: str, expected: str, project: dict[str, Any]
) -> None:
    environment = {"sys_platform": platform, "platform_machine": machine}
    requirements = map(Requirement, project["optional-dependencies"][extra])
    chosen = [
        r.name
        for r in requirements
        if r.name.startswith("onnxruntime") and (r.marker is None or r.marker.evaluate(environment))
    ]
    assert chosen == [expected]
