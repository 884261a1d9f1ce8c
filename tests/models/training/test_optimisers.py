from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from dropserve_models.training.config import TrainingConfig
from dropserve_models.training.network import Network
from dropserve_models.training.optimisers import make_optimiser

CASES: list[tuple[dict[str, Any], Any, dict[str, Any]]] = [
    ({"optimizer": "adamw", "weight_decay": 0.3}, torch.optim.AdamW, {}),
    ({"optimizer": "adam", "weight_decay": 0.3}, torch.optim.Adam, {}),
    ({"optimizer": "adam", "weight_decay": 0.0}, torch.optim.Adam, {}),
    ({"optimizer": "sgd", "momentum": 0.9}, torch.optim.SGD, {"momentum": 0.9}),
    ({"optimizer": "sgd", "momentum": 0.0, "weight_decay": 0.0}, torch.optim.SGD, {}),
    (
        {"optimizer": "sgd", "momentum": 0.8, "nesterov": True, "weight_decay": 0.2},
        torch.optim.SGD,
        {"momentum": 0.8, "nesterov": True},
    ),
]


@pytest.mark.parametrize(("options", "reference", "arguments"), CASES)
def test_steps_are_those_of_torch_optim(options: dict[str, Any], reference: Any, arguments: Any) -> None:
    config = TrainingConfig(**options)
    network = Network((4, 3, 2), "tanh", dtype=torch.float64)
    network.initialise([np.random.default_rng(0)])
    weights = [weight.detach().clone().requires_grad_() for weight in network.weights]
    biases = [bias.detach().clone().requires_grad_() for bias in network.biases]
    groups = [
        {"params": weights, "weight_decay": config.weight_decay},
        {"params": biases, "weight_decay": 0.0},
    ]
    theirs = reference(groups, lr=1.0, **arguments)
    ours = make_optimiser([config], network)
    random = torch.Generator().manual_seed(0)
    for rate in (0.1, 0.3, 0.01, 0.2):
        gradients = [
            torch.randn(part.shape, generator=random, dtype=torch.float64) for part in (*weights, *biases)
        ]
        for part, gradient in zip((*weights, *biases), gradients, strict=True):
            part.grad = gradient.clone()
        for group in theirs.param_groups:
            group["lr"] = rate
        theirs.step()
        flat = [gradients[index] for index in (0, 2, 1, 3)]  # weight, bias, weight, bias
        rates = torch.tensor([[rate]], dtype=torch.float64)
        ours.step(torch.cat([gradient.flatten(1) for gradient in flat], dim=1), rates)
    for found, expected in zip((*network.weights, *network.biases), (*weights, *biases), strict=True):
        torch.testing.assert_close(found.detach(), expected.detach())


@pytest.mark.parametrize("optimizer", ["adamw", "adam", "sgd"])
def test_each_member_has_its_own_rate_and_decay(optimizer: str) -> None:
    configs = [TrainingConfig.from_mapping({"optimizer": optimizer, "weight_decay": d}) for d in (0.3, 0.0)]
    fleet = Network((4, 3, 2), "tanh", 2)
    fleet.initialise([np.random.default_rng(member) for member in range(2)])
    alone = [fleet.holding(fleet.parameters[member : member + 1].clone()) for member in range(2)]
    optimisers = [make_optimiser([config], network) for config, network in zip(configs, alone, strict=True)]
    together = make_optimiser(configs, fleet)
    random = torch.Generator().manual_seed(0)
    rates = torch.tensor([[0.1], [0.02]])
    for _ in range(3):
        gradient = torch.randn(fleet.parameters.shape, generator=random)
        together.step(gradient, rates)
        for member, optimiser in enumerate(optimisers):
            optimiser.step(gradient[member : member + 1], rates[member : member + 1])
    torch.testing.assert_close(fleet.parameters, torch.cat([network.parameters for network in alone]))
