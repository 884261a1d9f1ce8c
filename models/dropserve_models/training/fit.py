"""The training loop."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from dropserve_models.errors import ConfigError
from dropserve_models.training.config import TrainingConfig
from dropserve_models.training.losses import Objective
from dropserve_models.training.masks import MaskStream
from dropserve_models.training.network import Network
from dropserve_models.training.optimisers import make_optimiser
from dropserve_models.training.schedules import Schedule


@dataclass(frozen=True, slots=True)
class Rows:
    """Standardised features [members, rows, features] and the targets that the objective wants."""

    x: Tensor
    y: Tensor


@dataclass(frozen=True, slots=True)
class Epoch:
    """What one epoch came to; `loss` is the validation loss's like, on the training rows with dropout on."""

    number: int
    learning_rate: float
    loss: float
    validation_loss: float
    score: float


@dataclass(slots=True)
class History:
    """Every epoch, and the one whose weights were kept."""

    metric: str
    epochs: list[Epoch] = field(default_factory=list)
    best: Epoch | None = None


def fit(
    network: Network,
    training: Rows,
    validation: Rows,
    objective: Objective,
    config: TrainingConfig,
    seed: np.random.SeedSequence,
    on_epoch: Callable[[Epoch], None] = lambda epoch: None,
) -> History:
    """Train `network` in place; it ends with the weights of the epoch of the lowest validation loss.

    The same seed, on the same machine and library versions, gives the same weights bit for bit.

    Raises
    ------
    ConfigError
        The loss stopped being finite.
    """
    init_seed, order_seed, mask_seed = seed.spawn(3)
    network.initialise(np.random.default_rng(init_seed))
    order = np.random.default_rng(order_seed)
    masks = MaskStream(config.drop_rates, network.sizes[:-1], mask_seed)
    members, rows, _ = training.x.shape
    batches = math.ceil(rows / config.batch_size)
    optimiser = make_optimiser(config, network)
    schedule = Schedule(config, batches)
    history = History(objective.metric)
    best = network.parameters.clone()

    for number in range(1, config.epochs + 1):
        total, rate = torch.zeros(()), 0.0
        # Split evenly, so that no epoch ends with a noisy step on a handful of rows.
        shuffled = torch.from_numpy(order.permutation(rows)).tensor_split(batches)
        for step, batch in enumerate(shuffled, (number - 1) * batches):
            x, y = training.x.index_select(1, batch), training.y.index_select(1, batch)
            outputs = network.forward(x, masks.draw(members, len(batch)))
            minimised, comparable = objective.training_losses(outputs, y)
            rate = schedule.rate(step)
            optimiser.step(network.gradient(minimised.sum()), rate)
            if config.max_norm is not None:
                network.limit_norms(config.max_norm)
            total += comparable.sum() * len(batch)

        outputs = network.evaluate(validation.x)
        epoch = Epoch(
            number=number,
            learning_rate=rate,
            loss=total.item() / rows,
            validation_loss=objective.validation_loss(outputs, validation.y).item(),
            score=objective.score(outputs, validation.y).item(),
        )
        if not math.isfinite(epoch.loss) or not math.isfinite(epoch.validation_loss):
            raise ConfigError(
                f"training diverged in epoch {number}: the loss is no longer finite; lower learning_rate "
                f"(it is {config.learning_rate:g})"
            )
        history.epochs.append(epoch)
        schedule.observe(epoch.validation_loss)
        on_epoch(epoch)
        if history.best is None or epoch.validation_loss < history.best.validation_loss:
            history.best = epoch
            best.copy_(network.parameters)
        elif number - history.best.number >= config.patience:
            break

    with torch.no_grad():
        network.parameters.copy_(best)
    return history
