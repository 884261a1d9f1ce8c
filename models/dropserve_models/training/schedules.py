"""Learning rates over a training run."""

from __future__ import annotations

import math

from dropserve_models.training.config import TrainingConfig

WARM_UP = 0.3
START_DIVISOR = 25.0
END_DIVISOR = 1e4


class Schedule:
    """The learning rate of each step.

    Parameters
    ----------
    config : TrainingConfig
    steps_per_epoch : int
    """

    def __init__(self, config: TrainingConfig, steps_per_epoch: int) -> None:
        self._config = config
        self._steps_per_epoch = steps_per_epoch
        self._total = config.epochs * steps_per_epoch
        self._lowest = math.inf
        self._stale_epochs = 0
        self._reductions = 0

    def rate(self, step: int) -> float:
        """The learning rate of that step, counted from 0."""
        return self._config.learning_rate * self._factor(step)

    def observe(self, validation_loss: float) -> None:
        """Take note of an epoch's validation loss: what plateau goes by."""
        self._stale_epochs += 1
        if validation_loss < self._lowest:
            self._lowest, self._stale_epochs = validation_loss, 0
        if self._stale_epochs == self._config.decay_epochs:
            self._reductions, self._stale_epochs = self._reductions + 1, 0

    def _factor(self, step: int) -> float:
        decay, epoch = self._config.decay, step / self._steps_per_epoch
        match self._config.schedule:
            case "constant":
                return 1.0
            case "onecycle":
                return one_cycle(step / max(self._total - 1, 1))
            case "cosine":
                return _cosine(1.0, 0.0, step / self._total)
            case "exponential":
                return float(decay ** (epoch / self._config.decay_epochs))
            case "step":
                return float(decay ** (epoch // self._config.decay_epochs))
            case "plateau":
                return float(decay**self._reductions)


def one_cycle(done: float) -> float:
    """Smith & Topin's 1cycle policy as torch.optim's OneCycleLR has it, at a part `done` of the run."""
    start, end = 1.0 / START_DIVISOR, 1.0 / (START_DIVISOR * END_DIVISOR)
    if done < WARM_UP:
        return _cosine(start, 1.0, done / WARM_UP)
    return _cosine(1.0, end, (done - WARM_UP) / (1.0 - WARM_UP))


def _cosine(start: float, end: float, done: float) -> float:
    return end + (start - end) * (1.0 + math.cos(math.pi * done)) / 2.0
