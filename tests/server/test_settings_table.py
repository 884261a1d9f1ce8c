"""The documentation's table of settings is what the settings say."""

from __future__ import annotations

import importlib.util
from pathlib import Path

from dropserve_server.settings import Settings

ROOT = Path(__file__).parents[2]
SCRIPT = "scripts/settings_table.py"


def test_the_table_of_settings_is_fresh() -> None:
    spec = importlib.util.spec_from_file_location("settings_table", ROOT / SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    page = (ROOT / "docs/operations.md").read_text("utf-8")
    assert script.with_table(page) == page, f"run: python {SCRIPT}"
    table = page[page.index("## Every setting") :]
    assert [name for name in Settings.model_fields if f"| `{name}` |" not in table] == []
