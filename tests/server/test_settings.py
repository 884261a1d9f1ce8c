"""Where settings come from, who wins, and what is said about a wrong one."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import get_args

import pytest
from pydantic import BaseModel

from dropserve_server.errors import SettingsError
from dropserve_server.policy import ModelPolicy, VersionPolicy
from dropserve_server.settings import Settings
from dropserve_server.sources import mistyped_variables, read_settings


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in os.environ:
        if name.upper().startswith("DROPSERVE_"):
            monkeypatch.delenv(name)


def write(folder: Path, text: str) -> str:
    path = folder / "dropserve.toml"
    path.write_text(text)
    return str(path)


def test_defaults_are_those_of_the_contract() -> None:
    settings = read_settings({"repository": "models"})
    assert settings.repository == Path("models")
    assert (settings.grpc_port, settings.metrics_port) == (8001, 8002)
    assert settings.metrics_host == "127.0.0.1"
    assert settings.device == "auto"
    assert settings.default_passes == 50
    assert settings.threads is None


def test_flags_win_over_the_environment_and_that_over_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = write(tmp_path, 'repository = "file"\ngrpc_port = 1\nmetrics_port = 1\nmax_rows = 1\n')
    monkeypatch.setenv("DROPSERVE_GRPC_PORT", "2")
    monkeypatch.setenv("DROPSERVE_METRICS_PORT", "2")
    monkeypatch.setenv("DROPSERVE_VERSIONS", "")
    settings = read_settings({"metrics_port": "3"}, config)
    assert settings.repository == Path("file")
    assert (settings.max_rows, settings.grpc_port, settings.metrics_port) == (1, 2, 3)
    assert settings.versions == VersionPolicy(1)  # set to nothing is not set


def test_the_environment_may_name_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DROPSERVE_CONFIG", write(tmp_path, 'repository = "file"\nwarm_up = true\n'))
    assert read_settings({}).warm_up
    assert not read_settings({"warm_up": False}).warm_up


@pytest.mark.parametrize(
    ("flags", "variables", "toml", "message"),
    [
        (
            {},
            {},
            "",
            "--repository is required (or DROPSERVE_REPOSITORY, or repository in the settings file)",
        ),
        ({"grpc_port": "x"}, {}, "", "--grpc-port is 'x': input should be a valid integer"),
        ({"device": "gpu"}, {}, "", "--device is 'gpu': input should be 'auto', 'cpu' or 'cuda'"),
        (
            {},
            {"DROPSERVE_GRPC_PORT": "70000"},
            "",
            "DROPSERVE_GRPC_PORT is '70000': input should be less than",
        ),
        ({}, {}, "max_rows = 0", "max_rows is 0: input should be greater than 0"),
        ({}, {}, "max_row = 5", "there is no setting 'max_row'"),
        ({}, {}, "[limits]\nrows = 5", "there is no setting 'limits'"),
        ({}, {}, "[max_rows]\nrows = 5", "max_rows is {'rows': 5}: input should be a valid integer"),
        ({}, {}, "rows =", "is not TOML"),
        (
            {"default_passes": "20", "max_passes": "10"},
            {},
            "",
            "default_passes is 20, more than max_passes, 10",
        ),
        ({"max_rows": "20", "queue_rows": "10"}, {}, "", "max_rows is 20, more than queue_rows, 10"),
        (
            {"versions": "newest"},
            {},
            "",
            "--versions is 'newest': versions must be latest:2 (or 2), all, or only",
        ),
        ({}, {}, '[models.a]\nversions = "0"', "models.a.versions is '0': versions must be"),
        ({}, {}, "[models.a]\nlatest = 3", "models.a.latest is 3: extra inputs are not permitted"),
        ({}, {}, '[models."../a"]\ndefault = 1', "can't be a model's name"),
        ({"models": "{"}, {}, "", "--models is '{': must be JSON"),
        ({}, {"DROPSERVE_MODELS": "[1]"}, "", "DROPSERVE_MODELS is [1]: input should be a valid dict"),
        ({"tls_key": "/nowhere"}, {}, "", "--tls-key is '/nowhere': path does not point to a file"),
    ],
)
def test_a_wrong_setting_is_told_in_one_line_with_its_source(
    flags: dict[str, str],
    variables: dict[str, str],
    toml: str,
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    if message.startswith("--repository"):
        config = None
    else:
        flags, config = {"repository": "models"} | flags, write(tmp_path, toml)
    with pytest.raises(SettingsError) as refusal:
        read_settings(flags, config)
    assert message in str(refusal.value)
    assert "\n" not in str(refusal.value)


def test_versions_to_serve_for_all_models_and_for_single_ones(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = write(
        tmp_path,
        'repository = "file"\nversions = 2\n'
        '[models.a]\nversions = "only:1,3"\ndefault = 3\n[models.b]\ndefault = 7\n',
    )
    settings = read_settings({}, config)
    assert settings.versions == VersionPolicy(2)
    assert settings.policies() == {
        "a": ModelPolicy(VersionPolicy(None, frozenset({1, 3})), 3),
        "b": ModelPolicy(VersionPolicy(2), 7),
    }
    assert settings.model_dump(mode="json")["versions"] == "latest:2"
    monkeypatch.setenv("DROPSERVE_VERSIONS", "all")
    monkeypatch.setenv("DROPSERVE_MODELS", '{"a": {"versions": "latest:1"}}')
    settings = read_settings({}, config)
    assert settings.versions == VersionPolicy(None)
    assert settings.policies() == {"a": ModelPolicy(VersionPolicy(1))}  # in place of the whole table
    flags = {"models": '{"c": {"default": 1}}', "versions": "3"}
    assert read_settings(flags, config).policies()["c"] == ModelPolicy(VersionPolicy(3), 1)


def test_certificate_and_key_go_together(tmp_path: Path) -> None:
    key = tmp_path / "key.pem"
    key.touch()
    with pytest.raises(SettingsError, match="give both or neither"):
        read_settings({"repository": "models", "tls_key": str(key)})


def test_authorities_of_clients_are_for_tls(tmp_path: Path) -> None:
    authorities = tmp_path / "ca.pem"
    authorities.touch()
    with pytest.raises(SettingsError, match="tls_client_ca is for TLS"):
        read_settings({"repository": "models", "tls_client_ca": str(authorities)})


@pytest.mark.parametrize(
    ("host", "more", "refused"),
    [
        ("0.0.0.0", {}, True),
        ("10.1.2.3", {}, True),
        ("::", {}, True),
        ("example.com", {}, True),
        ("127.0.0.1", {}, False),
        ("127.9.9.9", {}, False),
        ("::1", {}, False),
        ("[::1]", {}, False),
        ("localhost", {}, False),
        ("0.0.0.0", {"tokens_without_tls": True}, False),
        ("0.0.0.0", {"tls_certificate": "FILE", "tls_key": "FILE"}, False),
    ],
)
def test_tokens_travel_in_plain_text_on_this_machine_only(
    host: str, more: dict[str, str], refused: bool, tmp_path: Path
) -> None:
    path = tmp_path / "file"
    path.touch()
    given = {"repository": "models", "host": host, "token_file": str(path)} | {
        name: str(path) if value == "FILE" else value for name, value in more.items()
    }
    if refused:
        with pytest.raises(SettingsError, match=rf"tokens would reach {re.escape(host)} in plain text: give"):
            read_settings(given)
    else:
        assert read_settings(given).token_file == path


def test_tokens_of_administrators_too(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.touch()
    given = {"repository": "models", "host": "127.0.0.1", "token_file": str(path), "admin_host": "0.0.0.0"}
    assert read_settings(given).admin_port is None
    with pytest.raises(SettingsError, match=r"or admin_host 127\.0\.0\.1, or"):
        read_settings(given | {"admin_port": 8003})


def test_a_missing_file_is_told(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"can't read the settings file .*none.toml: No such file"):
        read_settings({"repository": "models"}, str(tmp_path / "none.toml"))


def test_likely_typing_errors_in_the_environment_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DROPSERVE_GRPC_PRT", "1")
    monkeypatch.setenv("DROPSERVE_TOKEN", "x")  # the client's
    monkeypatch.setenv("DROPSERVE_PORT_8001_TCP_ADDR", "10.0.0.1")  # of Kubernetes' service links
    monkeypatch.setenv("DROPSERVE_GRPC_PORT", "1")
    assert mistyped_variables() == {"DROPSERVE_GRPC_PRT": "DROPSERVE_GRPC_PORT"}


def models_in(annotation: object) -> Iterator[type[BaseModel]]:
    """The models that a setting is made of."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
        for field in annotation.model_fields.values():
            yield from models_in(field.annotation)
    for inner in get_args(annotation):
        yield from models_in(inner)


def test_unknown_keys_are_errors_at_every_depth() -> None:
    found = list(models_in(Settings))
    assert Settings in found
    assert [model for model in found if model.model_config.get("extra") != "forbid"] == []


def test_every_setting_says_what_it_means() -> None:
    for name, field in Settings.model_fields.items():
        assert field.description, name
        assert field.description.endswith("."), name
