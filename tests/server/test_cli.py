"""``dropserve serve`` up to the point where it serves."""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from pathlib import Path

import pytest

from dropserve_server import cli
from dropserve_server.errors import SettingsError
from dropserve_server.settings import Settings


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in os.environ:
        if name.upper().startswith("DROPSERVE_"):
            monkeypatch.delenv(name)


def options_of(*arguments: str) -> list[str]:
    """What the command line of ``dropserve`` hands to the subcommand."""
    parser = argparse.ArgumentParser(allow_abbrev=False)
    parser.add_argument("--version", action="version", version="1")
    cli.register(parser.add_subparsers())
    args = parser.parse_args(["serve", *arguments])
    assert (args.run, args.extra) == (cli.run, "server")
    return list(args.options)


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["--help"],
        ["-h"],
        ["--version"],
        ["--repository", "models", "--no-warm-up", "--grpc-port=1", "--threads", "-1"],
    ],
)
def test_the_subcommand_gets_every_argument_as_it_is(arguments: list[str]) -> None:
    assert options_of(*arguments) == arguments


def test_options_become_settings(tmp_path: Path) -> None:
    config = tmp_path / "c.toml"
    config.write_text("max_rows = 7\n")
    settings = cli.parse(
        [
            "--repository",
            str(tmp_path),
            "--config",
            str(config),
            "--grpc-port=0",
            "--warm-up",
            "--threads",
            "3",
        ]
    )
    assert settings.repository == tmp_path
    assert (settings.max_rows, settings.grpc_port, settings.warm_up, settings.threads) == (7, 0, True, 3)


def test_every_setting_is_an_option_with_its_meaning(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        cli.parse(["--help"])
    assert end.value.code == 0
    help_text = " ".join(capsys.readouterr().out.split())
    for name, field in Settings.model_fields.items():
        assert f"--{name.replace('_', '-')}" in help_text
        assert str(field.description) in help_text
    assert "[8001]" in help_text
    assert "--device auto|cpu|cuda" in help_text


@pytest.mark.parametrize("argument", ["--repositry", "--repo", "models", "--print"])
def test_unknown_options_are_refused_in_one_line(argument: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        cli.parse([argument, "x"])
    assert end.value.code == 2
    told = capsys.readouterr().err
    assert told == f"dropserve serve: unrecognized arguments: {argument} x; see dropserve serve --help\n"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ([], "--repository is required"),
        (["--repository", "/nowhere/at/all"], "there is no repository folder /nowhere/at/all"),
        (["--repository", "/", "--grpc-port", "-5"], "--grpc-port is '-5'"),
    ],
)
def test_wrong_settings_end_with_status_2_and_one_line(
    options: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.run(argparse.Namespace(options=options)) == 2
    out, err = capsys.readouterr()
    assert out == ""
    (line,) = err.splitlines()
    assert line.startswith(f"dropserve serve: {message}")


def test_a_file_is_no_repository(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(SettingsError, match="no repository folder"):
        cli.parse(["--repository", str(tmp_path / "file")])


def test_registering_needs_nothing_but_the_standard_library() -> None:
    script = (
        "import sys, argparse; from dropserve_server import cli;"
        "cli.register(argparse.ArgumentParser().add_subparsers());"
        "print(sorted({'numpy', 'grpc', 'pydantic', 'torch', 'onnxruntime', 'google'} & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout == "[]\n"


def test_the_server_is_imported_without_torch() -> None:
    script = "import sys, dropserve_server.server; print('torch' in sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout == "False\n"
