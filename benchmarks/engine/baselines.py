"""Monte Carlo dropout as it is written by hand, in torch."""

from __future__ import annotations

from typing import cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

Moments = tuple[NDArray[np.float32], NDArray[np.float32]]


@torch.inference_mode()
def loop(module: nn.Module, features: NDArray[np.float32], passes: int) -> Moments:
    """Mean and variance [rows, outputs] of `passes` calls of a module in train mode."""
    x = torch.from_numpy(features)
    outputs = torch.stack([cast(Tensor, module(x)) for _ in range(passes)])
    return outputs.mean(0).numpy(), outputs.var(0).numpy()


@torch.inference_mode()
def repeated_batch(module: nn.Module, features: NDArray[np.float32], passes: int) -> Moments:
    """The same from one call on the rows repeated `passes` times."""
    x = torch.from_numpy(features).repeat(passes, 1)
    outputs = cast(Tensor, module(x)).view(passes, len(features), -1)
    return outputs.mean(0).numpy(), outputs.var(0).numpy()
