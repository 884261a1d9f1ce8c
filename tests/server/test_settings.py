"""Where settings come from, who wins, and what is said about a wrong one."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from dropserve_server.errors import SettingsError
from dropserve_server.policy import ModelPolicy, VersionPolicy
from dropserve_server.settings import Settings, mistyped_variables, read_settings


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


def test_a_missing_file_is_told(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"can't read the settings file .*none.toml: No such file"):
        read_settings({"repository": "models"}, str(tmp_path / "none.toml"))


def test_likely_typing_errors_in_the_environment_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DROPSERVE_GRPC_PRT", "1")
    monkeypatch.setenv("DROPSERVE_SERVER", "another:8001")  # the client's
    monkeypatch.setenv("DROPSERVE_GRPC_PORT", "1")
    assert mistyped_variables() == {"DROPSERVE_GRPC_PRT": "DROPSERVE_GRPC_PORT"}


def test_every_setting_says_what_it_means() -> None:
    for name, field in Settings.model_fields.items():
        assert field.description, name
        assert field.description.endswith("."), name
