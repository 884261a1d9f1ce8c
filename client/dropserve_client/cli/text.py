"""Tables for the terminal."""

from __future__ import annotations

from collections.abc import Collection, Sequence


def table(header: Sequence[str], lines: Sequence[Sequence[str]], right: Collection[int] = ()) -> str:
    """Columns as wide as they need to be; those in `right` are aligned to the right."""
    rows = [header, *lines]
    widths = [max(len(row[column]) for row in rows) for column in range(len(header))]
    return "\n".join(
        "  ".join(
            cell.rjust(width) if column in right else cell.ljust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    )
