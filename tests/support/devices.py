"""The device engine on the CPU, where every line of it but the recording of CUDA graphs runs as on CUDA."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from dropserve_models.inference.device.engine import DeviceEngine
from dropserve_models.inference.device.graphs import Record
from dropserve_models.prediction import DEFAULT_MEMORY_BYTES
from support.engines import blueprint_of

CPU = torch.device("cpu")


def device_engine_of(
    data: bytes,
    memory_bytes: int = DEFAULT_MEMORY_BYTES,
    record: Record | None = None,
    device: torch.device = CPU,
) -> DeviceEngine:
    """As `engine_of`, for a device."""
    blueprint = blueprint_of(data, "cpu" if device.type == "cpu" else "cuda")
    assert blueprint.program is not None, blueprint.monte_carlo_unavailable
    classifier = blueprint.info.task != "regression"
    return DeviceEngine(blueprint.program, blueprint.prefix, classifier, memory_bytes, device, record)


class FakeGraphs:
    """Records like CUDA: computes nothing until it is replayed, on and into the memory of the recording.

    Attributes
    ----------
    recorded, replayed : int
        How often.
    """

    def __init__(self) -> None:
        self.recorded = self.replayed = 0

    def __call__(
        self, function: Callable[[], tuple[Tensor, ...]]
    ) -> tuple[tuple[Tensor, ...], Callable[[], None]]:
        self.recorded += 1
        outputs = tuple(torch.full_like(output, torch.nan) for output in function())

        def replay() -> None:
            self.replayed += 1
            for old, new in zip(outputs, function(), strict=True):
                old.copy_(new)

        return outputs, replay
