"""The networks under measurement: one torch module and one artifact of the same weights each.

They are trained for a moment, with dropout, on made-up tasks: how many passes an accuracy takes depends on
how the outputs spread, and that of a network that has learnt nothing says little about one that has.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import TypeAlias, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from benchmarks.networks import Network, Parameters, publish
from dropserve_models import load

FloatArray: TypeAlias = NDArray[np.float32]
Task: TypeAlias = Callable[[int, np.random.Generator], tuple[FloatArray, FloatArray]]
"""Draws so many rows: features [rows, features], and class numbers or targets [rows]."""

STEPS, BATCH, LEARNING_RATE = 400, 128, 1e-3
TOLERANCE = 1e-4
"""How far the module's outputs may be from ONNX Runtime's."""


@dataclass(frozen=True, slots=True)
class Subject:
    """A trained network.

    Attributes
    ----------
    network : Network
    module : nn.Sequential
        In train mode, so that its dropout is on.
    folder : Path
        The artifact.
    score : str
        How well it does on rows it has not seen, in eval mode, in words.
    features : ndarray [rows, features]
        Rows it has not seen.
    """

    network: Network
    module: nn.Sequential
    folder: Path
    score: str
    features: FloatArray

    def rows(self, count: int) -> FloatArray:
        """The first `count` rows, repeated where there are fewer."""
        return np.resize(self.features, (count, self.features.shape[1]))


def prepare(network: Network, repository: Path, rows: int = 2048) -> Subject:
    """Train a network, publish it, and make sure that both forms answer the same.

    Raises
    ------
    RuntimeError
        The module and the artifact differ.
    """
    task = clusters(network) if network.softmax else teacher(network)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        module = _modules(network)
        _fit(module, network, task, np.random.default_rng(1))
    folder = publish(network, repository, _parameters(module))
    features, targets = task(rows, np.random.default_rng(2))
    module.eval()
    with torch.inference_mode():
        outputs = cast(Tensor, module(torch.from_numpy(features))).numpy()
    module.train()
    difference = float(np.abs(outputs - load(folder, device="cpu").predict(features).mean).max())
    if not difference <= TOLERANCE:
        raise RuntimeError(f"{network.name}: the torch module and the artifact differ by {difference:.2g}")
    if network.softmax:
        score = f"{np.mean(outputs.argmax(1) == targets):.1%} of the classes right"
    else:
        score = f"R² {1 - np.var(outputs[:, 0] - targets) / np.var(targets):.2f}"
    return Subject(network, module, folder, score, features)


def clusters(network: Network) -> Task:
    """Classes that overlap: normal clouds whose centres are 4 standard deviations apart, typically.

    So far, because the largest network then gets about 84 % right, which is what it gets of Fashion-MNIST
    after as many steps; and its 100 passes err about as much there.
    """
    inputs, classes = network.sizes[0], network.sizes[-1]
    centres = np.random.default_rng(0).normal(0, 4 / np.sqrt(2 * inputs), (classes, inputs))

    def draw(rows: int, random: np.random.Generator) -> tuple[FloatArray, FloatArray]:
        labels = random.integers(classes, size=rows)
        features = centres[labels] + random.normal(size=(rows, inputs))
        return features.astype(np.float32), labels.astype(np.float32)

    return draw


def teacher(network: Network) -> Task:
    """A smooth function, given by a random network, plus noise of standard deviation .3."""
    inputs, units = network.sizes[0], 20
    weights = np.random.default_rng(0)
    first = weights.normal(0, 1.5 / np.sqrt(inputs), (inputs, units))
    last = weights.normal(0, 1.5 / np.sqrt(units), units)

    def draw(rows: int, random: np.random.Generator) -> tuple[FloatArray, FloatArray]:
        features = random.normal(size=(rows, inputs))
        targets = np.tanh(features @ first) @ last + random.normal(0, 0.3, rows)
        return features.astype(np.float32), targets.astype(np.float32)

    return draw


def _modules(network: Network) -> nn.Sequential:
    """Dropout, linear layers and relu in turn, and the softmax where there is one."""
    modules: list[nn.Module] = []
    for (inputs, outputs), rate in zip(pairwise(network.sizes), network.rates, strict=True):
        if modules:
            modules.append(nn.ReLU())
        if rate:
            modules.append(nn.Dropout(rate))
        modules.append(nn.Linear(inputs, outputs))
    if network.softmax:
        modules.append(nn.Softmax(dim=1))
    return nn.Sequential(*modules)


def _fit(module: nn.Sequential, network: Network, task: Task, random: np.random.Generator) -> None:
    linear = module[:-1] if network.softmax else module
    optimiser = torch.optim.Adam(module.parameters(), LEARNING_RATE)
    features, targets = (torch.from_numpy(part) for part in task(STEPS * BATCH, random))
    for x, y in zip(torch.split(features, BATCH), torch.split(targets, BATCH), strict=True):
        outputs = cast(Tensor, linear(x))
        loss = (
            functional.cross_entropy(outputs, y.long())
            if network.softmax
            else functional.mse_loss(outputs[:, 0], y)
        )
        optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimiser.step()


def _parameters(module: nn.Sequential) -> Parameters:
    return [
        (layer.weight.detach().numpy().T.copy(), layer.bias.detach().numpy().copy())
        for layer in module
        if isinstance(layer, nn.Linear)
    ]
