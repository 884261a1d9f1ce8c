from __future__ import annotations

import math

import numpy as np
import pytest
import scipy.stats
import torch
from torch import Tensor

from dropserve_models.training.losses import CrossEntropy, GaussianNoise, Objective, SquaredError, r2


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.from_numpy(np.random.default_rng(seed).normal(size=shape))


@pytest.mark.parametrize("beta", [0.0, 0.5, 1.0])
def test_beta_nll_is_the_formula_of_its_paper(beta: float) -> None:
    outputs, y = normal(2, 50, 6), normal(2, 50, 3, seed=1)
    outputs.requires_grad_()
    found, comparable = GaussianNoise(3, beta).gradient(outputs.detach(), y, None, None)
    mean, variance = outputs[..., :3], outputs[..., 3:].exp()
    # Seitzer et al. 2022, eq. 5: E[ stop(s^2)^beta (log(s^2) / 2 + (y - m)^2 / (2 s^2) + C) ]
    terms = variance.log() / 2 + (y - mean) ** 2 / (2 * variance) + math.log(2 * math.pi) / 2
    loss = (variance.detach() ** beta * terms).mean(dim=(1, 2))
    (expected,) = torch.autograd.grad(loss.sum(), outputs)
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(comparable, GaussianNoise(3).loss(outputs.detach(), y))


def test_gaussian_noise_is_validated_by_the_negative_log_likelihood() -> None:
    outputs, y = normal(2, 50, 6), normal(2, 50, 3, seed=1)
    density = scipy.stats.norm(outputs[..., :3].numpy(), np.exp(outputs[..., 3:].numpy() / 2))
    expected = -density.logpdf(y.numpy()).mean(axis=(1, 2))
    np.testing.assert_allclose(GaussianNoise(3).loss(outputs, y), expected)


def test_log_variances_are_bounded() -> None:
    outputs = torch.tensor([[[0.0, 1000.0], [0.0, -1000.0], [0.0, 3.0]]])
    _, log_variance = GaussianNoise(1).split(outputs)
    assert log_variance.flatten().tolist() == [14.0, -14.0, 3.0]
    gradient, loss = GaussianNoise(1).gradient(outputs, torch.zeros(1, 3, 1), None, None)
    assert torch.isfinite(loss).all()
    assert gradient[0, :2, 1].tolist() == [0.0, 0.0]  # nothing moves what is out of bounds
    assert gradient[0, 2, 1].item() != 0.0


def test_cross_entropy() -> None:
    logits, y = normal(2, 30, 4), torch.from_numpy(np.random.default_rng(1).integers(0, 4, (2, 30)))
    objective = CrossEntropy(4)
    probabilities = logits.exp() / logits.exp().sum(dim=2, keepdim=True)
    expected = -probabilities.gather(2, y.unsqueeze(2)).log().mean(dim=(1, 2))
    torch.testing.assert_close(objective.gradient(logits, y, None, None)[1], expected)
    torch.testing.assert_close(objective.loss(logits, y), expected)
    right = torch.stack([(logits[m].argmax(1) == y[m]).float().mean() for m in range(2)])
    torch.testing.assert_close(objective.score(logits, y), right)


def test_squared_error_and_r2() -> None:
    mean, y = normal(2, 30, 3), normal(2, 30, 3, seed=1)
    objective = SquaredError(3)
    expected = ((mean - y) ** 2).mean(dim=(1, 2))
    torch.testing.assert_close(objective.gradient(mean, y, None, None)[1], expected)
    torch.testing.assert_close(objective.loss(mean, y), expected)
    assert r2(y, y).tolist() == [1.0, 1.0]
    average = y.mean(dim=1, keepdim=True).expand_as(y)
    torch.testing.assert_close(objective.score(average, y), torch.zeros(2, dtype=torch.float64))
    assert r2(mean[:, :1], y[:, :1]).tolist() == [0.0, 0.0]  # a single row has no spread


def parts(members: int, rows: int) -> Tensor:
    weights = torch.from_numpy(np.random.default_rng(5).uniform(size=(members, rows)))
    return weights / weights.sum(dim=1, keepdim=True)


@pytest.mark.parametrize("weights", [None, parts(2, 30)])
@pytest.mark.parametrize("smoothing", [None, torch.tensor([0.0, 0.3], dtype=torch.float64).view(2, 1, 1)])
def test_the_gradient_of_the_cross_entropy_is_that_of_torch(
    weights: Tensor | None, smoothing: Tensor | None
) -> None:
    logits, y = normal(2, 30, 4), torch.from_numpy(np.random.default_rng(1).integers(0, 4, (2, 30)))
    found, loss = CrossEntropy(4).gradient(logits, y, weights, smoothing)
    for member in range(2):
        leaf = logits[member].clone().requires_grad_()
        smoothed = 0.0 if smoothing is None else smoothing[member].item()
        rows = torch.nn.functional.cross_entropy(leaf, y[member], reduction="none", label_smoothing=smoothed)
        mean = rows.mean() if weights is None else (rows * weights[member]).sum()
        (expected,) = torch.autograd.grad(mean, leaf)
        torch.testing.assert_close(found[member], expected, rtol=1e-6, atol=1e-8)
    torch.testing.assert_close(loss, CrossEntropy(4).loss(logits, y, weights))


@pytest.mark.parametrize("objective", [SquaredError(3), GaussianNoise(3, beta=0.0)])
def test_the_gradient_of_weighted_rows_is_that_of_the_loss(objective: Objective) -> None:
    outputs, y, weights = normal(2, 30, objective.outputs), normal(2, 30, 3, seed=1), parts(2, 30)
    found, loss = objective.gradient(outputs.clone(), y, weights, None)
    leaf = outputs.clone().requires_grad_()
    (expected,) = torch.autograd.grad(objective.loss(leaf, y, weights).sum(), leaf)
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(loss, objective.loss(outputs, y, weights))


def test_a_row_of_weight_zero_is_as_if_it_were_not_there() -> None:
    outputs, y = normal(1, 9, 4), normal(1, 9, 2, seed=1)
    weights = (torch.arange(9) < 6).double().div(6).unsqueeze(0)
    objective = GaussianNoise(2)
    for found, expected in (
        (objective.loss(outputs, y, weights), objective.loss(outputs[:, :6], y[:, :6])),
        (objective.score(outputs, y, weights), objective.score(outputs[:, :6], y[:, :6])),
    ):
        torch.testing.assert_close(found, expected)
