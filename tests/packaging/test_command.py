"""The `dropserve` command as it was installed, and what importing the packages costs."""

from __future__ import annotations

import os
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest

DROPSERVE = Path(sys.executable).with_name("dropserve")


def run(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(arguments, capture_output=True, text=True, timeout=60, check=False)


def test_version_is_the_distributions() -> None:
    answer = run(DROPSERVE, "--version")
    assert (answer.returncode, answer.stdout) == (0, f"dropserve {metadata.version('dropserve')}\n")


def test_help_lists_every_subcommand() -> None:
    answer = run(DROPSERVE, "--help")
    assert answer.returncode == 0
    registered = {entry.name for entry in metadata.entry_points(group="dropserve.commands")}
    assert registered >= {"train", "serve", "predict", "models", "bench"}
    assert registered <= set(answer.stdout.split())
    assert "not available" not in answer.stdout


@pytest.mark.parametrize("subcommand", ["train", "serve", "predict", "models", "bench"])
def test_every_subcommand_explains_itself(subcommand: str) -> None:
    answer = run(DROPSERVE, subcommand, "--help")
    assert (answer.returncode, answer.stderr) == (0, "")
    assert answer.stdout.startswith(f"usage: dropserve {subcommand}")


@pytest.mark.parametrize("subcommand", ["", "serve", "predict", "models"])
def test_help_needs_no_torch(subcommand: str) -> None:
    probe = (
        "import sys; from dropserve_client.cli.main import main\n"
        "try: main(sys.argv[1:])\n"
        "except SystemExit: pass\n"
        "assert 'torch' not in sys.modules"
    )
    answer = run(sys.executable, "-c", probe, *filter(None, [subcommand]), "--help")
    assert answer.returncode == 0, answer.stderr


@pytest.mark.parametrize(
    ("package", "absent"),
    [
        ("dropserve_client", ["torch", "onnx", "onnxruntime", "pydantic", "pandas", "polars"]),
        ("dropserve_models", ["torch", "grpc", "sklearn", "polars", "matplotlib"]),
        ("dropserve_models.model", ["torch", "grpc", "sklearn", "polars", "matplotlib"]),
        ("dropserve_server.server", ["torch", "sklearn", "polars", "matplotlib"]),
    ],
)
def test_importing_a_package_is_light(package: str, absent: list[str]) -> None:
    probe = f"import sys, {package}; print(*(name for name in {absent} if name in sys.modules))"
    answer = run(sys.executable, "-c", probe)
    assert (answer.returncode, answer.stdout.strip()) == (0, ""), answer.stderr


def test_onnxruntime_keeps_and_sends_no_usage_records(tmp_path: Path) -> None:
    probe = "import dropserve_models.inference.deterministic"
    environment = {"HOME": str(tmp_path), "PATH": os.environ["PATH"]}
    subprocess.run([sys.executable, "-c", probe], env=environment, check=True, timeout=60)
    assert list(tmp_path.rglob("*")) == []
