"""CUDA graphs: a sequence of kernels that is launched as one.

A block of passes is some hundred small kernels, each of which takes longer to launch than to run. Recorded
once for a shape, they are replayed with a single launch, on the inputs and into the outputs of the
recording.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Sequence
from typing import TypeAlias

import torch
from torch import Tensor

log = logging.getLogger(__name__)

Tensors: TypeAlias = tuple[Tensor, ...]
Record: TypeAlias = Callable[[Callable[[], Tensors]], tuple[Tensors, Callable[[], None]]]
"""Records a function without inputs: its outputs, and what computes them again, in place."""

_ONE_AT_A_TIME = threading.Lock()  # torch records one graph at a time in a process


class Recorder:
    """Records functions, until it fails once: from then on they are called as they are.

    Parameters
    ----------
    record : Record or None
        None: never record.

    Attributes
    ----------
    count : int
        Functions recorded.
    """

    def __init__(self, record: Record | None) -> None:
        self._record = record
        self.count = 0

    def __call__(self, function: Callable[[], Tensors]) -> tuple[Tensors, Callable[[], None]] | None:
        """What `record` gives, or None where nothing is recorded."""
        if self._record is None:
            return None
        try:
            recorded = self._record(function)
        except RuntimeError as error:  # torch's errors: not capturable, out of memory, of the driver
            self._record = None
            reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
            log.warning("Monte Carlo runs without CUDA graphs: %s", reason)
            return None
        self.count += 1
        return recorded


class Replayed:
    """A function of tensors of fixed shapes, recorded when it is called for the second time.

    The first call has warmed it up, as libraries need before they can be recorded; and a shape that never
    comes again is not worth recording.
    """

    def __init__(self, recorder: Recorder) -> None:
        self._recorder = recorder
        self._warm = False
        self._recorded: tuple[Tensors, Callable[[], None]] | None = None
        self._inputs: Sequence[Tensor] = ()

    def __call__(self, function: Callable[..., Tensors], *inputs: Tensor) -> Tensors:
        """The function's results. The next call may overwrite them.

        Parameters
        ----------
        function : callable
            The same each time. What it reads and writes beside its inputs must stay where it is in memory.
        """
        if self._recorded is None and self._warm:
            own = [given.clone() for given in inputs]
            self._recorded = self._recorder(lambda: function(*own))
            self._inputs = own
        if self._recorded is None:
            outputs = function(*inputs)
            self._warm = True
            return outputs
        outputs, replay = self._recorded
        for recorded, given in zip(self._inputs, inputs, strict=True):
            recorded.copy_(given)
        replay()
        return outputs


def cuda_record(stream: torch.cuda.Stream) -> Record:
    """Records on a stream that must be the current one; all graphs share their memory for what is in between.

    They may, as long as none of them runs beside another: hence the one stream.
    """
    pool = torch.cuda.graph_pool_handle()

    def record(function: Callable[[], Tensors]) -> tuple[Tensors, Callable[[], None]]:
        graph = torch.cuda.CUDAGraph()
        # Other threads go on using CUDA meanwhile, which the default mode would forbid them.
        with (
            _ONE_AT_A_TIME,
            torch.cuda.graph(graph, pool=pool, stream=stream, capture_error_mode="thread_local"),
        ):
            outputs = function()
        return outputs, graph.replay

    return record
