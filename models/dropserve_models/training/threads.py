"""How many threads a training step is worth."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from dropserve_models.inference.deterministic import available_cores

# Two milliseconds or so of one core: with less, threads wait for each other longer than they compute,
# and where other programs want the cores too, many times longer.
OPERATIONS_A_THREAD = 100_000_000


def threads_for(parameters: int, batch_size: int, cores: int) -> int:
    """Threads for a step of six operations (forward, and twice backward) a parameter and row."""
    return max(1, min(cores, 6 * parameters * batch_size // OPERATIONS_A_THREAD))


@contextmanager
def limited_threads(parameters: int, batch_size: int) -> Iterator[None]:
    """Let torch use no more threads than the steps are worth, within the context."""
    before = torch.get_num_threads()
    torch.set_num_threads(threads_for(parameters, batch_size, min(before, available_cores())))
    try:
        yield
    finally:
        torch.set_num_threads(before)
