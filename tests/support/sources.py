"""Data files that are read, or refused."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest

from dropserve_models.errors import DataError
from dropserve_models.training.sources import read_table

Write = Callable[..., str]
"""Writes a data file and returns its path."""


def refused(source: str, targets: Sequence[str] = ("y",), *, header: bool = True) -> str:
    """Check that it is refused, in one line: the message."""
    with pytest.raises(DataError) as caught:
        read_table(source, targets, header=header)
    message = str(caught.value)
    assert "\n" not in message
    return message
