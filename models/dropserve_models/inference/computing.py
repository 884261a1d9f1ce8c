"""Torch as the engine wants it, where computing may pause and go on in another thread."""

from __future__ import annotations

from collections.abc import Iterator

import torch


def computing(steps: Iterator[None], threads: int) -> Iterator[None]:
    """Take steps without gradients, with so many of torch's threads, and pause between them.

    Both are settings of a thread, so they hold for a step each: the next one may be another thread's.
    """
    going = True
    while going:
        before = torch.get_num_threads()
        torch.set_num_threads(threads)
        try:
            with torch.inference_mode():
                going = next(steps, steps) is None
        finally:
            torch.set_num_threads(before)
        if going:
            yield
