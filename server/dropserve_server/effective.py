"""``dropserve serve --print-settings``: the settings in effect, as TOML, and where each came from."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from dropserve_server.settings import Settings
from dropserve_server.sources import mistyped_variables, source_of


def effective_settings(settings: Settings, flags: Mapping[str, Any], config: str | None) -> str:
    """Every setting on a line, with its source as a comment; ``--config`` reads it back.

    Parameters
    ----------
    settings : Settings
    flags, config
        What it was read from, see `dropserve_server.sources.read_settings`.
    """
    given = settings.model_fields_set
    lines = []
    for name, value in settings.model_dump(mode="json").items():
        source = _comment(source_of(name, flags, config)) if name in given else "default"
        if value is None:
            lines.append(f"# {name}: unset  # {source}")
        else:
            lines.append(f"{name} = {_toml(value)}  # {source}")
    lines += [
        f"# the environment variable {_comment(variable)} is ignored; did you mean {likeness}?"
        for variable, likeness in mistyped_variables().items()
    ]
    return "\n".join(lines) + "\n"


def _toml(value: object) -> str:
    """A value on one line, as https://toml.io/en/v1.0.0 wants it; what JSON's model has, but null."""
    if isinstance(value, dict):
        pairs = (f"{_string(key)} = {_toml(item)}" for key, item in value.items() if item is not None)
        return f"{{ {', '.join(pairs)} }}" if value else "{}"
    if isinstance(value, list):
        return f"[{', '.join(map(_toml, value))}]"
    if isinstance(value, bool):
        return str(value).lower()
    return repr(value) if isinstance(value, int | float) else _string(str(value))


def _string(text: str) -> str:
    # JSON's escapes are TOML's, which wants one more character escaped.
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")


def _comment(text: str) -> str:
    return text if text.isprintable() else _string(text)
