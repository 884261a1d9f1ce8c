"""Learning rates over a training run."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dropserve_models.training.config import TrainingConfig

WARM_UP = 0.3
START_DIVISOR = 25.0
END_DIVISOR = 1e4


class Schedule:
    """The learning rates of each step.

    Parameters
    ----------
    configs : sequence of TrainingConfig
        One for each member; they differ in the learning rate at most.
    steps_per_epoch : int
    """

    def __init__(
        self,
        configs: Sequence[TrainingConfig],
        steps_per_epoch: int,
        device: torch.device | str = "cpu",
    ) -> None:
        self._config = configs[0]
        self._highest = np.array([config.learning_rate for config in configs])
        self._steps_per_epoch = steps_per_epoch
        self._total = self._config.epochs * steps_per_epoch
        self._lowest = np.full(len(configs), math.inf)
        self._stale_epochs = np.zeros(len(configs))
        self._reductions = np.zeros(len(configs))
        self._device = device
        self._base = self._now()

    def rates(self, step: int) -> Tensor:
        """The learning rates of that step, counted from 0; [members, 1]."""
        return self._base * self._factor(step)

    def observe(self, validation_losses: NDArray[np.float64]) -> None:
        """Take note of an epoch's validation losses [members]: what plateau goes by."""
        if self._config.schedule != "plateau":
            return
        better = validation_losses < self._lowest
        self._lowest = np.where(better, validation_losses, self._lowest)
        self._stale_epochs = np.where(better, 0, self._stale_epochs + 1)
        due = self._stale_epochs == self._config.decay_epochs
        self._reductions[due] += 1
        self._stale_epochs[due] = 0
        self._base = self._now()

    def state(self) -> NDArray[np.float64]:
        """What was observed, [members, ...]."""
        return np.stack([self._lowest, self._stale_epochs, self._reductions], axis=1)

    def restore(self, state: NDArray[np.float64]) -> None:
        """Go on from where `state` was taken."""
        self._lowest, self._stale_epochs, self._reductions = np.array(state.T)
        self._base = self._now()

    def _now(self) -> Tensor:
        rates: NDArray[Any] = self._highest * self._config.decay**self._reductions
        return torch.from_numpy(rates.astype(np.float32)).unsqueeze(1).to(self._device)

    def _factor(self, step: int) -> float:
        decay, epoch = self._config.decay, step / self._steps_per_epoch
        match self._config.schedule:
            case "constant" | "plateau":
                return 1.0
            case "onecycle":
                return one_cycle(step / max(self._total - 1, 1))
            case "cosine":
                return _cosine(1.0, 0.0, step / self._total)
            case "exponential":
                return float(decay ** (epoch / self._config.decay_epochs))
            case "step":
                return float(decay ** (epoch // self._config.decay_epochs))


def one_cycle(done: float) -> float:
    """Smith & Topin's 1cycle policy as torch.optim's OneCycleLR has it, at a part `done` of the run."""
    start, end = 1.0 / START_DIVISOR, 1.0 / (START_DIVISOR * END_DIVISOR)
    if done < WARM_UP:
        return _cosine(start, 1.0, done / WARM_UP)
    return _cosine(1.0, end, (done - WARM_UP) / (1.0 - WARM_UP))


def _cosine(start: float, end: float, done: float) -> float:
    return end + (start - end) * (1.0 + math.cos(math.pi * done)) / 2.0
