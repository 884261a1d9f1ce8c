"""What the tests of other projects' clients share.

Not one of them is named test_*.py: each holds only in the environment made for its client, and `make
test-clients` names it there. The server runs elsewhere, see `support/with_server.py`.
"""

from __future__ import annotations

import os
from collections.abc import Iterator

import numpy as np
import pytest
from numpy.typing import NDArray

from dropserve_client import Client


@pytest.fixture(scope="session")
def address() -> str:
    return os.environ["EXAMPLE_SERVER"]


@pytest.fixture(scope="session")
def sdk(address: str) -> Iterator[Client]:
    """Our own client, in the same process: what it gets, the others must get."""
    with Client(address) as client:
        yield client


@pytest.fixture(scope="session")
def rows() -> NDArray[np.float32]:
    """Features of the model "classes", [7, 30]."""
    return np.random.default_rng(0).standard_normal((7, 30)).astype(np.float32)
