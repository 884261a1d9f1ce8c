"""What one writes by hand: a network, an optimiser and two loops, one fit after the other."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from dropserve_models.training.config import TrainingConfig


def fit(x: Tensor, y: Tensor, config: TrainingConfig, classes: int) -> nn.Sequential:
    """Train a classifier by SGD on standardised rows [rows, features], classes [rows]; in eval mode after."""
    network = _network(x.shape[1], classes, config)
    hidden = [layer for layer in network if isinstance(layer, nn.Linear)][:-1]
    optimiser = torch.optim.SGD(network.parameters(), lr=config.learning_rate, momentum=config.momentum)
    criterion = nn.CrossEntropyLoss()
    network.train()
    for _ in range(config.epochs):
        for batch in torch.split(torch.randperm(len(x)), config.batch_size):
            optimiser.zero_grad()
            criterion(network(x[batch]), y[batch]).backward()
            optimiser.step()
            if config.max_norm is not None:
                limit_norms(hidden, config.max_norm)
    return network.eval()


@torch.no_grad()
def limit_norms(layers: list[nn.Linear], max_norm: float) -> None:
    """Scale down the incoming weights of units whose norm exceeds the bound."""
    for layer in layers:
        norms = layer.weight.norm(dim=1, keepdim=True).clamp(min=max_norm)
        layer.weight.mul_(max_norm / norms)


def _network(features: int, classes: int, config: TrainingConfig) -> nn.Sequential:
    layers: list[nn.Module] = []
    sizes = (features, *config.hidden, classes)
    for index, rate in enumerate(config.drop_rates):
        if rate > 0.0:
            layers.append(nn.Dropout(rate))
        layers.append(nn.Linear(sizes[index], sizes[index + 1]))
        if index < len(config.hidden):
            layers.append(nn.ReLU())
    return nn.Sequential(*layers)
