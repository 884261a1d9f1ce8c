"""Where settings come from: flags win over the environment, which wins over a TOML file."""

from __future__ import annotations

import os
import tomllib
from collections.abc import Iterator, Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from pydantic_settings import BaseSettings, InitSettingsSource, PydanticBaseSettingsSource

from dropserve_server.errors import SettingsError
from dropserve_server.settings import ENVIRONMENT_PREFIX, Settings

_VARIABLES_OF_OTHERS = {"DROPSERVE_TOKEN", "DROPSERVE_DEBUG"}  # read by the client's commands


def read_settings(flags: Mapping[str, Any], config: str | None = None) -> Settings:
    """Settings from flags over the environment over a TOML file.

    Parameters
    ----------
    flags : mapping
        Settings given on the command line, by name.
    config : str, optional
        The TOML file. None: the one ``DROPSERVE_CONFIG`` names, if it does.

    Raises
    ------
    SettingsError
        A value is wrong or its key unknown, or the file can't be read.
    """
    config = settings_file(config)
    file = _read_toml(Path(config)) if config else {}

    class LayeredSettings(Settings):
        @classmethod
        def settings_customise_sources(
            cls,
            settings_cls: type[BaseSettings],
            init_settings: PydanticBaseSettingsSource,
            env_settings: PydanticBaseSettingsSource,
            dotenv_settings: PydanticBaseSettingsSource,
            file_secret_settings: PydanticBaseSettingsSource,
        ) -> tuple[PydanticBaseSettingsSource, ...]:
            return init_settings, env_settings, InitSettingsSource(settings_cls, file)

    try:
        return LayeredSettings(**flags)
    except ValidationError as error:
        raise SettingsError("; ".join(_problems(error, flags, config))) from error


def settings_file(named: str | None) -> str | None:
    """The settings file: the one named, else the one that ``DROPSERVE_CONFIG`` names, if it does."""
    return named or os.environ.get(f"{ENVIRONMENT_PREFIX}CONFIG") or None


def mistyped_variables() -> dict[str, str]:
    """Environment variables that look like mistyped settings, and what they look like."""
    known = {ENVIRONMENT_PREFIX + name.upper() for name in (*Settings.model_fields, "config")}
    suspects = {v for v in map(str.upper, os.environ) if v.startswith(ENVIRONMENT_PREFIX)} - known
    suspects -= _VARIABLES_OF_OTHERS
    likenesses = {v: get_close_matches(v, known, n=1, cutoff=0.85) for v in sorted(suspects)}
    return {variable: likeness[0] for variable, likeness in likenesses.items() if likeness}


def source_of(name: str, flags: Mapping[str, Any], config: str | None) -> str:
    """Where the value of a setting came from that was given: a flag, a variable, or the file."""
    variable = ENVIRONMENT_PREFIX + name.upper()
    if name in flags:
        return flag(name)
    given = {key.upper() for key, value in os.environ.items() if value}
    return variable if variable in given else f"{config}: {name}"


def flag(name: str) -> str:
    """The command line's spelling of a setting."""
    return "--" + name.replace("_", "-")


def _read_toml(path: Path) -> dict[str, Any]:
    try:
        with path.open("rb") as file:
            return tomllib.load(file)
    except OSError as error:
        raise SettingsError(f"can't read the settings file {path}: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise SettingsError(f"the settings file {path} is not TOML: {error}") from error


def _problems(error: ValidationError, flags: Mapping[str, Any], config: str | None) -> Iterator[str]:
    for problem in error.errors(include_url=False, include_context=False):
        name = ".".join(str(part) for part in problem["loc"])
        setting, _, inside = name.partition(".")
        variable = ENVIRONMENT_PREFIX + setting.upper()
        if not name:
            yield problem["msg"].removeprefix("Value error, ")
        elif problem["type"] == "missing":
            yield f"{flag(name)} is required (or {variable}, or {name} in the settings file)"
        elif problem["type"] == "extra_forbidden" and not inside:
            yield f"{config}: there is no setting {name!r}"
        else:
            source = source_of(setting, flags, config) + (f".{inside}" if inside else "")
            message = problem["msg"].removeprefix("Value error, ")
            message = message[0].lower() + message[1:]
            yield f"{source} is {problem['input']!r}: {message}"
