"""What training minimises, what validation compares epochs by, and the figure shown beside them."""

from __future__ import annotations

import math
from typing import Protocol

import torch
from torch import Tensor
from torch.nn import functional

LOG_VARIANCE_MIN, LOG_VARIANCE_MAX = -14.0, 14.0
"""Bounds of the predicted log-variance of a standardised target: a noise of .001 to 1000 of its spread."""

BETA = 0.5


class Objective(Protocol):
    """Losses of outputs [members, rows, outputs], one for each member.

    Attributes
    ----------
    outputs : int
        How many the network needs.
    metric : str
        The name of what `score` returns; higher is better.
    """

    outputs: int
    metric: str

    def training_losses(self, outputs: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        """What is minimised, and what `validation_loss` would be, each [members]."""

    def validation_loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """By which epochs are compared, [members]."""

    def score(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """The metric, [members]."""


class CrossEntropy:
    """Classes, numbered: targets are int64 [members, rows]; one output for each class, a logit."""

    metric = "accuracy"

    def __init__(self, classes: int) -> None:
        self.outputs = classes

    def training_losses(self, outputs: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        """The validation loss, twice."""
        loss = self.validation_loss(outputs, targets)
        return loss, loss.detach()

    def validation_loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Mean over the rows, in nats, [members]."""
        rows = functional.cross_entropy(outputs.flatten(0, 1), targets.flatten(), reduction="none")
        return rows.view(targets.shape).mean(dim=1)

    def score(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Share of the rows whose largest logit is the right one, [members]."""
        return (outputs.argmax(dim=2) == targets).float().mean(dim=1)


class SquaredError:
    """Standardised targets [members, rows, targets]; one output for each, its mean."""

    metric = "r2"

    def __init__(self, targets: int) -> None:
        self.outputs = targets

    def training_losses(self, outputs: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        """The validation loss, twice."""
        loss = self.validation_loss(outputs, targets)
        return loss, loss.detach()

    def validation_loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Mean over rows and targets, [members]."""
        return (outputs - targets).square().mean(dim=(1, 2))

    def score(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """R2, [members]."""
        return r2(outputs, targets)


class GaussianNoise:
    """Standardised targets [members, rows, targets]; outputs are their means, then their log-variances.

    Trained by the beta-NLL of Seitzer et al. (ICLR 2022, "On the pitfalls of heteroscedastic uncertainty
    estimation"), which weights each term of the Gaussian negative log-likelihood by its variance to the
    power of beta, held constant; validated by the negative log-likelihood itself.
    """

    metric = "r2"

    def __init__(self, targets: int, beta: float = BETA) -> None:
        self.outputs = 2 * targets
        self._targets = targets
        self._beta = beta

    def training_losses(self, outputs: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        """beta-NLL, and the negative log-likelihood: means over rows and targets, [members]."""
        terms, log_variance = self._terms(outputs, targets)
        weights = torch.exp(self._beta * log_variance.detach())
        return (weights * terms).mean(dim=(1, 2)), terms.detach().mean(dim=(1, 2))

    def validation_loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Negative log-likelihood in nats, mean over rows and targets, [members]."""
        return self._terms(outputs, targets)[0].mean(dim=(1, 2))

    def score(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """R2 of the means, [members]."""
        return r2(self.split(outputs)[0], targets)

    def _terms(self, outputs: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        mean, log_variance = self.split(outputs)
        squares = (targets - mean).square() * torch.exp(-log_variance)
        return 0.5 * (squares + log_variance + math.log(2 * math.pi)), log_variance

    def split(self, outputs: Tensor) -> tuple[Tensor, Tensor]:
        """Means and log-variances, each [..., targets]."""
        mean, log_variance = outputs[..., : self._targets], outputs[..., self._targets :]
        return mean, log_variance.clamp(LOG_VARIANCE_MIN, LOG_VARIANCE_MAX)


def r2(mean: Tensor, targets: Tensor) -> Tensor:
    """Coefficient of determination over all targets together, [members]; 0 where they are constant."""
    spread = (targets - targets.mean(dim=1, keepdim=True)).square().sum(dim=(1, 2))
    error = (targets - mean).square().sum(dim=(1, 2))
    return torch.where(spread > 0, 1 - error / spread, 0.0)
