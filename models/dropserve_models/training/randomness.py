"""Random streams: seeds that follow from others, and states as arrays, for a checkpoint."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray


def derive(seed: np.random.SeedSequence, count: int) -> list[np.random.SeedSequence]:
    """Independent seeds that follow from `seed`: the first of its `spawn`, but the same at every call."""
    return [
        np.random.SeedSequence(seed.entropy, spawn_key=(*seed.spawn_key, number)) for number in range(count)
    ]


def state_of(source: np.random.BitGenerator) -> NDArray[np.uint64]:
    """All that the stream's future depends on."""
    state: Any = source.state
    return np.array([*state["state"]["state"], state["has_uint32"], state["uinteger"]], np.uint64)


def set_state(source: np.random.BitGenerator, state: NDArray[np.uint64]) -> None:
    """Put the stream where `state` was taken."""
    source.state = {
        "bit_generator": "SFC64",
        "state": {"state": np.array(state[:-2], np.uint64)},
        "has_uint32": int(state[-2]),
        "uinteger": int(state[-1]),
    }
