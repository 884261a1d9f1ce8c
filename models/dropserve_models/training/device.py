"""Where a fleet is trained."""

from __future__ import annotations

import torch

from dropserve_models.errors import DeviceError
from dropserve_models.inference.deterministic import Device

# A step is some sixty kernels, a third of a millisecond to launch: as long as a core takes for this much.
OPERATIONS_FOR_CUDA = 50_000_000


def training_device(asked: Device, parameters: int, batch_size: int) -> torch.device:
    """The device for steps of so many parameters, of all members together, and rows.

    "auto" is the GPU where there is one and a step takes longer than launching it.

    Raises
    ------
    DeviceError
        "cuda" was asked for and is not there.
    """
    if asked == "cpu":
        return torch.device("cpu")
    available = torch.cuda.is_available()
    if asked == "cuda":
        if not available:
            raise DeviceError("device cuda was asked for, but torch finds no usable GPU; use --device cpu")
        return torch.device("cuda")
    gains = 6 * parameters * batch_size >= OPERATIONS_FOR_CUDA
    return torch.device("cuda" if available and gains else "cpu")


def device_name(asked: Device) -> str:
    """What fleets are trained on that a GPU is worth: cpu, or the GPU by its name.

    The same weights come only of the same device: a run that "auto" began on a GPU can't go on without it.
    """
    if asked == "cpu" or not torch.cuda.is_available():
        return "cpu"
    return torch.cuda.get_device_name()
