"""What --print-settings prints: every setting, where it came from, and a file that gives the same again."""

from __future__ import annotations

import argparse
import os
import tomllib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dropserve_server import cli
from dropserve_server.effective import _toml, effective_settings
from dropserve_server.settings import Settings
from dropserve_server.sources import read_settings


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in os.environ:
        if name.upper().startswith("DROPSERVE_"):
            monkeypatch.delenv(name)


def printed(capsys: pytest.CaptureFixture[str], *options: str) -> str:
    assert cli.run(argparse.Namespace(options=[*options, "--print-settings"])) == 0
    out, err = capsys.readouterr()
    assert err == ""
    return out


def test_every_setting_is_there_with_its_source(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    config = tmp_path / "dropserve.toml"
    config.write_text('repository = "file"\nmax_rows = 1\nversions = 2\n')
    monkeypatch.setenv("DROPSERVE_CONFIG", str(config))
    monkeypatch.setenv("DROPSERVE_MAX_ROWS", "2")
    monkeypatch.setenv("DROPSERVE_QUEUE_ROWS", "")
    monkeypatch.setenv("DROPSERVE_GRPC_PRT", "1")
    lines = printed(capsys, "--versions", "3", "--warm-up").splitlines()
    assert f'repository = "file"  # {config}: repository' in lines
    assert "max_rows = 2  # DROPSERVE_MAX_ROWS" in lines
    assert "queue_rows = 32768  # default" in lines  # set to nothing is not set
    assert "warm_up = true  # --warm-up" in lines
    assert "# tls_key: unset  # default" in lines
    assert any(line.startswith("versions = ") and line.endswith("  # --versions") for line in lines)
    assert lines[-1] == (
        "# the environment variable DROPSERVE_GRPC_PRT is ignored; did you mean DROPSERVE_GRPC_PORT?"
    )
    names = [line.removeprefix("# ").partition(" ")[0].rstrip(":") for line in lines[:-1]]
    assert names == list(Settings.model_fields)


def test_what_is_printed_is_a_settings_file_that_says_the_same(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = {"repository": 'a "quoted" \\ näme', "grpc_port": "0", "grace_seconds": "1e-3", "warm_up": True}
    settings = read_settings(given)
    path = tmp_path / "printed.toml"
    path.write_text(effective_settings(settings, given, None), encoding="utf-8")
    assert read_settings({}, str(path)).model_dump() == settings.model_dump()
    # And printing that says what it was read from.
    again = printed(capsys, "--config", str(path))
    assert f"grpc_port = 0  # {path}: grpc_port" in again.splitlines()


def test_wrong_settings_are_not_printed(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(argparse.Namespace(options=["--print-settings"])) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("dropserve serve: --repository is required")


TOML_VALUES = st.recursive(
    st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.floats(allow_nan=False)
    | st.text(st.characters(exclude_categories=["Cs"])),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(st.characters(exclude_categories=["Cs"])), inner),
    max_leaves=8,
)


@given(TOML_VALUES)
def test_any_value_is_read_back_as_it_was(value: Any) -> None:
    text = _toml(value)
    assert "\n" not in text
    assert tomllib.loads(f"value = {text}  # source")["value"] == value
