"""Data files of the tests' own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from support.sources import Write


@pytest.fixture
def write(tmp_path: Path) -> Write:
    def write(content: str | bytes, name: str = "data.csv") -> str:
        path = tmp_path / name
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return str(path)

    return write


@pytest.fixture
def save(tmp_path: Path) -> Write:
    def save(**arrays: Any) -> str:
        path = tmp_path / "data.npz"
        np.savez(path, **arrays)
        return str(path)

    return save
