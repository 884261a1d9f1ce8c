from __future__ import annotations

from pathlib import Path

import pytest

from support.evaluating import make_tables_and_models


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What `make_tables_and_models` makes, to be read only."""
    folder = tmp_path_factory.mktemp("trained")
    make_tables_and_models(folder)
    return folder
