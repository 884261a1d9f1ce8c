"""The base install: what an application that only asks a server has.

Not named test_*.py: it holds only where no extra is installed, so `make test` names it for the
environment made for that, and no other run collects it.
"""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest

DROPSERVE = Path(sys.executable).with_name("dropserve")
EXTRAS = [
    "torch",
    "onnx",
    "onnxruntime",
    "pydantic",
    "prometheus_client",
    "sklearn",
    "polars",
    "matplotlib",
    "pandas",
]


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([DROPSERVE, *arguments], capture_output=True, text=True, timeout=60, check=False)


@pytest.mark.parametrize("package", EXTRAS)
def test_nothing_of_the_extras_is_installed(package: str) -> None:
    assert importlib.util.find_spec(package) is None


@pytest.mark.parametrize(("subcommand", "extra"), [("train", "train"), ("serve", "server")])
def test_a_subcommand_names_the_extra_it_needs_in_one_line(subcommand: str, extra: str) -> None:
    answer = run(subcommand)
    assert answer.returncode == 2
    assert answer.stdout == ""
    assert answer.stderr.count("\n") == 1
    assert f"pip install 'dropserve[{extra}]'" in answer.stderr


@pytest.mark.parametrize("subcommand", ["predict", "models", "bench"])
def test_the_clients_subcommands_are_there(subcommand: str) -> None:
    answer = run(subcommand, "--help")
    assert (answer.returncode, answer.stderr) == (0, "")
    assert answer.stdout.startswith(f"usage: dropserve {subcommand}")


def test_the_version_is_told() -> None:
    assert run("--version").stdout.startswith("dropserve ")
