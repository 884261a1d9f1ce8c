from __future__ import annotations

import math

import numpy as np
import pytest
import scipy.stats
import torch
from torch import Tensor

from dropserve_models.training.losses import CrossEntropy, GaussianNoise, SquaredError, r2


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.from_numpy(np.random.default_rng(seed).normal(size=shape))


@pytest.mark.parametrize("beta", [0.0, 0.5, 1.0])
def test_beta_nll_is_the_formula_of_its_paper(beta: float) -> None:
    outputs, y = normal(2, 50, 6), normal(2, 50, 3, seed=1)
    loss, comparable = GaussianNoise(3, beta).training_losses(outputs, y)
    mean, variance = outputs[..., :3], outputs[..., 3:].exp()
    # Seitzer et al. 2022, eq. 5: E[ stop(s^2)^beta (log(s^2) / 2 + (y - m)^2 / (2 s^2) + C) ]
    terms = variance.log() / 2 + (y - mean) ** 2 / (2 * variance) + math.log(2 * math.pi) / 2
    torch.testing.assert_close(loss, (variance**beta * terms).mean(dim=(1, 2)))
    torch.testing.assert_close(comparable, GaussianNoise(3).validation_loss(outputs, y))


def test_the_weight_of_beta_nll_passes_no_gradient() -> None:
    outputs, y = normal(1, 20, 2).requires_grad_(), normal(1, 20, 1, seed=1)
    (found,) = torch.autograd.grad(GaussianNoise(1).training_losses(outputs, y)[0].sum(), outputs)
    with torch.no_grad():
        mean, variance = outputs[..., :1], outputs[..., 1:].exp()
        # d/dm = s^(2 beta) (m - y) / s^2,  d/dlog s^2 = s^(2 beta) (1 - (y - m)^2 / s^2) / 2
        weight = variance.sqrt() / 20
        by_mean = weight * (mean - y) / variance
        by_log_variance = weight * (1 - (y - mean) ** 2 / variance) / 2
    torch.testing.assert_close(found, torch.cat([by_mean, by_log_variance], dim=2))


def test_gaussian_noise_is_validated_by_the_negative_log_likelihood() -> None:
    outputs, y = normal(2, 50, 6), normal(2, 50, 3, seed=1)
    density = scipy.stats.norm(outputs[..., :3].numpy(), np.exp(outputs[..., 3:].numpy() / 2))
    expected = -density.logpdf(y.numpy()).mean(axis=(1, 2))
    np.testing.assert_allclose(GaussianNoise(3).validation_loss(outputs, y), expected)


def test_log_variances_are_bounded() -> None:
    outputs = torch.tensor([[[0.0, 1000.0], [0.0, -1000.0], [0.0, 3.0]]])
    _, log_variance = GaussianNoise(1).split(outputs)
    assert log_variance.flatten().tolist() == [14.0, -14.0, 3.0]
    assert torch.isfinite(GaussianNoise(1).training_losses(outputs, torch.zeros(1, 3, 1))[0]).all()


def test_cross_entropy() -> None:
    logits, y = normal(2, 30, 4), torch.from_numpy(np.random.default_rng(1).integers(0, 4, (2, 30)))
    objective = CrossEntropy(4)
    probabilities = logits.exp() / logits.exp().sum(dim=2, keepdim=True)
    expected = -probabilities.gather(2, y.unsqueeze(2)).log().mean(dim=(1, 2))
    torch.testing.assert_close(objective.training_losses(logits, y), (expected, expected))
    torch.testing.assert_close(objective.validation_loss(logits, y), expected)
    right = torch.stack([(logits[m].argmax(1) == y[m]).float().mean() for m in range(2)])
    torch.testing.assert_close(objective.score(logits, y), right)


def test_squared_error_and_r2() -> None:
    mean, y = normal(2, 30, 3), normal(2, 30, 3, seed=1)
    objective = SquaredError(3)
    expected = ((mean - y) ** 2).mean(dim=(1, 2))
    torch.testing.assert_close(objective.training_losses(mean, y), (expected, expected))
    assert r2(y, y).tolist() == [1.0, 1.0]
    average = y.mean(dim=1, keepdim=True).expand_as(y)
    torch.testing.assert_close(objective.score(average, y), torch.zeros(2, dtype=torch.float64))
    assert r2(mean[:, :1], y[:, :1]).tolist() == [0.0, 0.0]  # a single row has no spread
