"""Numbers below 1e-38, which processors compute with more slowly than with others."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def flushed_denormals() -> Iterator[None]:
    """Take numbers too small for a float32's full precision for 0, within the context, on the CPU.

    Training makes them by the thousand: the moving averages of gradients that have become 0 (of units that
    no longer answer, of classes that are all learned) shrink until they are denormal, and stay so.

    With several threads nothing changes: the mode is the calling thread's alone, and results must not depend
    on which thread computed what.
    """
    alone = torch.get_num_threads() == 1
    before = _flushes()
    if alone:
        torch.set_flush_denormal(True)
    try:
        yield
    finally:
        torch.set_flush_denormal(before)


def _flushes() -> bool:
    """Whether the mode is on already; torch doesn't tell."""
    smallest = torch.full((), torch.finfo(torch.float32).tiny)
    return smallest.mul(0.5).item() == 0.0
