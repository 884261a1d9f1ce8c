"""Monte Carlo dropout as it is written by hand, in torch."""

from __future__ import annotations

from typing import cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

Moments = tuple[NDArray[np.float32], NDArray[np.float32]]


@torch.inference_mode()
def loop(module: nn.Module, features: NDArray[np.float32], passes: int, device: str = "cpu") -> Moments:
    """Mean and variance [rows, outputs] of `passes` calls of a module in train mode."""
    x = torch.from_numpy(features).to(device)
    outputs = torch.stack([cast(Tensor, module(x)) for _ in range(passes)])
    return outputs.mean(0).cpu().numpy(), outputs.var(0).cpu().numpy()


@torch.inference_mode()
def repeated_batch(
    module: nn.Module, features: NDArray[np.float32], passes: int, device: str = "cpu"
) -> Moments:
    """The same from one call on the rows repeated `passes` times."""
    x = torch.from_numpy(features).to(device).repeat(passes, 1)
    outputs = cast(Tensor, module(x)).view(passes, len(features), -1)
    return outputs.mean(0).cpu().numpy(), outputs.var(0).cpu().numpy()
