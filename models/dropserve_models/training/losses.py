"""What training minimises, what validation compares epochs by, and the figure shown beside them."""

from __future__ import annotations

import math
from typing import Protocol

import torch
from torch import Tensor

LOG_VARIANCE_MIN, LOG_VARIANCE_MAX = -14.0, 14.0
"""Bounds of the predicted log-variance of a standardised target: a noise of .001 to 1000 of its spread."""

BETA = 0.5


class Objective(Protocol):
    """Losses of outputs [members, rows, outputs], one for each member.

    Everywhere `weights` [members, rows] are the rows' parts in the mean, and sum to 1 for each member;
    without them all rows count alike.

    Attributes
    ----------
    outputs : int
        How many the network needs.
    metric : str
        The name of what `score` returns; higher is better.
    """

    outputs: int
    metric: str

    def gradient(
        self, outputs: Tensor, targets: Tensor, weights: Tensor | None, smoothing: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """The gradient of what is minimised with respect to the outputs, and the `loss`, [members].

        `smoothing` [members, 1, 1]: of the labels, for classifiers.
        """

    def loss(self, outputs: Tensor, targets: Tensor, weights: Tensor | None = None) -> Tensor:
        """By which epochs are compared, [members]."""

    def score(self, outputs: Tensor, targets: Tensor, weights: Tensor | None = None) -> Tensor:
        """The metric, [members]."""


class CrossEntropy:
    """Classes, numbered: targets are int64 [members, rows]; one output for each class, a logit.

    With label smoothing s (Szegedy et al. 2016) the targets of training are 1 - s + s / classes for the true
    class and s / classes for the others; the loss reported is that of the true labels.
    """

    metric = "accuracy"

    def __init__(self, classes: int) -> None:
        self.outputs = classes

    def gradient(
        self, outputs: Tensor, targets: Tensor, weights: Tensor | None, smoothing: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """Softmax minus the targets, and the loss in nats."""
        logs = outputs.log_softmax(dim=2)
        index = targets.unsqueeze(2)
        loss = -_mean(logs.gather(2, index).squeeze(2), weights)
        gradient = logs.exp()
        if smoothing is None:
            gradient.scatter_add_(2, index, gradient.new_full((), -1.0).expand(index.shape))
        else:
            gradient.sub_(smoothing / self.outputs)
            gradient.scatter_add_(2, index, (smoothing - 1.0).expand(index.shape))
        return _weighted(gradient, weights), loss

    def loss(self, outputs: Tensor, targets: Tensor, weights: Tensor | None = None) -> Tensor:
        """Mean over the rows, in nats, [members]."""
        logs = outputs.log_softmax(dim=2)
        return -_mean(logs.gather(2, targets.unsqueeze(2)).squeeze(2), weights)

    def score(self, outputs: Tensor, targets: Tensor, weights: Tensor | None = None) -> Tensor:
        """Share of the rows whose largest logit is the right one, [members]."""
        return _mean((outputs.argmax(dim=2) == targets).float(), weights)


class SquaredError:
    """Standardised targets [members, rows, targets]; one output for each, its mean."""

    metric = "r2"

    def __init__(self, targets: int) -> None:
        self.outputs = targets

    def gradient(
        self, outputs: Tensor, targets: Tensor, weights: Tensor | None, smoothing: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """Of the loss itself."""
        error = outputs - targets
        loss = _mean(error.square().mean(dim=2), weights)
        return _weighted(error.mul_(2.0 / self.outputs), weights), loss

    def loss(self, outputs: Tensor, targets: Tensor, weights: Tensor | None = None) -> Tensor:
        """Mean over rows and targets, [members]."""
        return _mean((outputs - targets).square().mean(dim=2), weights)

    def score(self, outputs: Tensor, targets: Tensor, weights: Tensor | None = None) -> Tensor:
        """R2, [members]."""
        return r2(outputs, targets, weights)


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

    def gradient(
        self, outputs: Tensor, targets: Tensor, weights: Tensor | None, smoothing: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """Of the beta-NLL, and the negative log-likelihood.

        With m and v the mean and the variance: d/dm = v^beta (m - y) / v,
        d/dlog v = v^beta (1 - (y - m)^2 / v) / 2.
        """
        mean, log_variance = self.split(outputs)
        error = mean - targets
        precision = torch.exp(-log_variance)
        squares = error.square() * precision
        loss = self._average(squares + log_variance, weights)
        by_log_variance = (1.0 - squares).mul_(0.5)
        by_log_variance.masked_fill_(outputs[..., self._targets :] != log_variance, 0.0)  # out of bounds
        gradient = torch.cat([error * precision, by_log_variance], dim=2)
        factor = torch.exp(self._beta * log_variance).mul_(1.0 / self._targets)
        gradient.view(*factor.shape[:2], 2, self._targets).mul_(factor.unsqueeze(2))
        return _weighted(gradient, weights), loss

    def loss(self, outputs: Tensor, targets: Tensor, weights: Tensor | None = None) -> Tensor:
        """Negative log-likelihood in nats, mean over rows and targets, [members]."""
        mean, log_variance = self.split(outputs)
        squares = (targets - mean).square() * torch.exp(-log_variance)
        return self._average(squares + log_variance, weights)

    def score(self, outputs: Tensor, targets: Tensor, weights: Tensor | None = None) -> Tensor:
        """R2 of the means, [members]."""
        return r2(self.split(outputs)[0], targets, weights)

    def split(self, outputs: Tensor) -> tuple[Tensor, Tensor]:
        """Means and log-variances, each [..., targets]."""
        mean, log_variance = outputs[..., : self._targets], outputs[..., self._targets :]
        return mean, log_variance.clamp(LOG_VARIANCE_MIN, LOG_VARIANCE_MAX)

    def _average(self, terms: Tensor, weights: Tensor | None) -> Tensor:
        return 0.5 * (_mean(terms.mean(dim=2), weights) + math.log(2 * math.pi))


def r2(mean: Tensor, targets: Tensor, weights: Tensor | None = None) -> Tensor:
    """Coefficient of determination over all targets together, [members]; 0 where they are constant."""
    average = _mean(targets, weights).unsqueeze(1)
    spread = _mean((targets - average).square(), weights).sum(dim=1)
    error = _mean((targets - mean).square(), weights).sum(dim=1)
    return torch.where(spread > 0, 1 - error / spread, 0.0)


def _mean(values: Tensor, weights: Tensor | None) -> Tensor:
    """Over the rows of [members, rows, ...]."""
    if weights is None:
        return values.mean(dim=1)
    return (values * weights.view(*weights.shape, *[1] * (values.dim() - 2))).sum(dim=1)


def _weighted(gradient: Tensor, weights: Tensor | None) -> Tensor:
    """The rows' gradients as parts of the mean's, in place."""
    if weights is None:
        return gradient.mul_(1.0 / gradient.shape[1])
    return gradient.mul_(weights.unsqueeze(2))
