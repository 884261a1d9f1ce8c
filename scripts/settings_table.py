"""Write the table of settings in docs/operations.md, from the settings themselves.

``python scripts/settings_table.py`` after a change of a setting; a test holds the two equal.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

from dropserve_server.settings import Settings

PAGE = Path(__file__).parents[1] / "docs/operations.md"
BEGIN, END = "<!-- settings: scripts/settings_table.py -->\n", "<!-- end of settings -->\n"


def table() -> str:
    """The table, in Markdown."""
    lines = ["| setting | default | |", "|---|---|---|"]
    for name, field in Settings.model_fields.items():
        choices = get_args(field.annotation) if get_origin(field.annotation) is Literal else ()
        meaning = " ".join(str(field.description).split())
        if choices:
            meaning += f" ({', '.join(f'`{choice}`' for choice in choices)})"
        lines.append(f"| `{name}` | {_default(field)} | {meaning.replace('|', chr(92) + '|')} |")
    return "\n".join(lines) + "\n"


def with_table(page: str) -> str:
    """The page, with the table between its marks."""
    replaced, count = re.subn(
        f"(?<={re.escape(BEGIN)}).*?(?={re.escape(END)})", lambda _: table(), page, flags=re.DOTALL
    )
    if count != 1:
        raise ValueError(f"{PAGE} must have the lines {BEGIN.strip()} and {END.strip()} once")
    return replaced


def _default(field: Any) -> str:
    if field.is_required():
        return "required"
    if field.default is None:
        return "unset"
    return f"`{str(field.default).lower()}`" if field.annotation is bool else f"`{field.default}`"


if __name__ == "__main__":
    PAGE.write_text(with_table(PAGE.read_text("utf-8")), "utf-8")
