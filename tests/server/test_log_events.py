"""The log's events are a closed list, and the documentation has it."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import dropserve_server

ROOT = Path(__file__).parents[2]
METHODS = {"debug", "info", "warning", "error", "critical", "log"}
LOGGERS = {"log", "logger"}


def events(source: str) -> set[str]:
    """The constant phrases that a module logs."""
    found = set()
    for node in ast.walk(ast.parse(source)):
        match node:
            case ast.Call(func=ast.Attribute(value=ast.Name(id=name), attr=method), args=args) if (
                name in LOGGERS and method in METHODS
            ):
                event = args[1 if method == "log" else 0]
                assert isinstance(event, ast.Constant), ast.unparse(node)
                found.add(str(event.value))
    return found


def test_every_event_is_documented_and_every_documented_one_exists() -> None:
    sources = Path(dropserve_server.__file__).parent.rglob("*.py")
    logged = set().union(*(events(path.read_text("utf-8")) for path in sources))
    text = (ROOT / "docs/operations.md").read_text("utf-8")
    table = text[text.index("\n## Log\n") : text.index("\n## Metrics\n")]
    documented = re.findall(r"^\| `([a-z ]+)` \|", table, re.MULTILINE)
    assert len(documented) == len(set(documented))
    assert set(documented) - {"library message"} == logged
    assert len(logged) > 12
