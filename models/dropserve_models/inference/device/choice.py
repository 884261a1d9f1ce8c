"""Which engine answers Monte Carlo requests: that of the device where ONNX Runtime computes, if it works."""

from __future__ import annotations

import logging
from typing import TypeAlias

import torch

from dropserve_models.errors import MemoryLimitError
from dropserve_models.inference.deterministic import Session
from dropserve_models.inference.device.engine import DeviceEngine
from dropserve_models.inference.engine import Engine
from dropserve_models.inference.program import Program
from dropserve_models.prediction import FloatArray

log = logging.getLogger(__name__)

AnyEngine: TypeAlias = Engine | DeviceEngine

_DEVICE = torch.device("cuda", 0)  # the one that ONNX Runtime takes


def make_engine(
    program: Program,
    prefix: Session | None,
    opening: Program | None,
    classifier: bool,
    memory_bytes: int,
    provider: str,
    probe: FloatArray,
) -> AnyEngine:
    """An engine that has been tried out.

    Parameters
    ----------
    program, prefix, opening, classifier, memory_bytes
        See `Engine`.
    provider : str
        ONNX Runtime's execution provider of this model.
    probe : ndarray [rows, features]
        Features that any model of this kind can answer.
    """
    if provider == "CUDAExecutionProvider":
        try:
            if not torch.cuda.is_available():
                raise RuntimeError(f"torch {torch.__version__} finds no CUDA device")
            engine = DeviceEngine(program, prefix, classifier, memory_bytes, _DEVICE)
            engine.warm_up(probe)
        except (
            RuntimeError,
            MemoryLimitError,
        ) as error:  # torch's: a driver too old, no kernels for a device
            reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
            log.warning("Monte Carlo runs on the CPU, deterministic requests on CUDA: %s", reason)
        else:
            return engine
    on_cpu = Engine(program, prefix, opening, classifier, memory_bytes)
    on_cpu.prepare_small(probe)
    return on_cpu
