"""Members of a fleet, trained side by side: the state of a run, and an epoch of it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dropserve_models.training.batches import Batch, Batches, Index, padded
from dropserve_models.training.config import TrainingConfig
from dropserve_models.training.losses import Objective
from dropserve_models.training.masks import MaskStream
from dropserve_models.training.network import Network, Tape
from dropserve_models.training.optimisers import make_optimiser
from dropserve_models.training.randomness import derive
from dropserve_models.training.schedules import Schedule

MEMBER_OPTIONS = frozenset(
    {"input_drop", "hidden_drop", "max_norm", "weight_decay", "learning_rate", "label_smoothing", "patience"}
)
"""Training options in which members of a fleet may differ."""

Arrays = dict[str, NDArray[Any]]


@dataclass(frozen=True, slots=True)
class Examples:
    """What a fleet learns from, standardised.

    Attributes
    ----------
    x : Tensor [examples, features]
        The last ones are positions, one for each embedding.
    y : Tensor [examples] or [examples, targets]
        Class numbers, int64, or targets.
    embeddings : tuple of (int, int)
        Positions and width of each.
    """

    x: Tensor
    y: Tensor
    embeddings: tuple[tuple[int, int], ...] = ()

    @property
    def inputs(self) -> int:
        """How many inputs the first linear layer has."""
        return self.x.shape[1] - len(self.embeddings) + sum(width for _, width in self.embeddings)


@dataclass(frozen=True, slots=True)
class Member:
    """One model of a fleet.

    Attributes
    ----------
    config : TrainingConfig
    training, validation : ndarray
        Numbers of its examples. Without validation examples every epoch is run and the last one kept.
    seed : SeedSequence
        Of its initial weights, the order of its examples and its masks.
    class_weights : tuple of float or None
        Of each class's examples in the loss.
    """

    config: TrainingConfig
    training: Index
    validation: Index
    seed: np.random.SeedSequence
    class_weights: tuple[float, ...] | None = None


def fleet_key(config: TrainingConfig) -> str:
    """Equal for configurations whose members can be trained in one fleet."""
    return config.model_dump_json(exclude=set(MEMBER_OPTIONS))


class Fleet:
    """Networks in training, [members, ...] throughout.

    What a member learns depends on itself alone, but for the rounding of products, if all members have as
    many training examples and drop from the same layers: those decide on the steps and on the use of
    random numbers. Members that leave change nothing for the others.

    Raises
    ------
    ValueError
        The members' configurations differ in more than `MEMBER_OPTIONS`.
    """

    def __init__(
        self,
        members: Sequence[Member],
        examples: Examples,
        objective: Objective,
        device: torch.device | str = "cpu",
    ) -> None:
        if len({fleet_key(member.config) for member in members}) != 1:
            raise ValueError(
                f"members of one fleet differ in no option but {', '.join(sorted(MEMBER_OPTIONS))}"
            )
        self.numbers = list(range(len(members)))
        """Which of the members given are still in training."""
        self.members = list(members)
        self.objective = objective
        self._device = torch.device(device)
        self._x, self._y = examples.x.to(device), examples.y.to(device)
        config = members[0].config
        sizes = (examples.inputs, *config.hidden, objective.outputs)
        self.network = Network(
            sizes,
            config.activation,
            len(members),
            device=device,
            norm=config.norm,
            residual=config.residual,
            embeddings=examples.embeddings,
        )
        seeds = [derive(member.seed, 3) for member in members]
        self.network.initialise([np.random.default_rng(init) for init, _, _ in seeds])
        self._batches = Batches(
            [member.training for member in members],
            config.batch_size,
            [order for _, order, _ in seeds],
            device,
        )
        rates = [member.config.drop_rates for member in members]
        self._masks = MaskStream(rates, sizes[:-1], [masks for _, _, masks in seeds], device)
        self._epochs = 0
        self._prepare()

    def _prepare(self) -> None:
        """Whatever follows from the members and the steps taken."""
        configs = [member.config for member in self.members]
        self._schedule = Schedule(configs, self._batches.steps, self._device)
        self._optimiser = make_optimiser(configs, self.network, self._epochs * self._batches.steps)
        bounds = [math.inf if config.max_norm is None else config.max_norm for config in configs]
        self._max_norms = self._column(bounds) if min(bounds) < math.inf else None
        smoothing = [config.label_smoothing for config in configs]
        self._smoothing = self._column(smoothing) if max(smoothing) > 0.0 else None
        given = [member.class_weights for member in self.members if member.class_weights is not None]
        self._class_weights = torch.tensor(given, device=self._device) if given else None
        self._prepare_validation()

    def _prepare_validation(self) -> None:
        self.validates = len(self.members[0].validation) > 0
        if not self.validates:
            return
        index, places = padded([member.validation for member in self.members])
        rows = torch.from_numpy(index).to(self._device)
        weights = None if places is None else torch.from_numpy(places).to(self._device)
        self._held_out = self._x[rows], self._y[rows]
        self._held_out_parts, _ = _parts(weights)
        self._held_out_weights, _ = _parts(self._weigh(self._held_out[1], weights))

    def _column(self, values: Sequence[float]) -> Tensor:
        return torch.tensor(values, dtype=torch.float32, device=self._device).view(-1, 1, 1)

    def _weigh(self, y: Tensor, places: Tensor | None) -> Tensor | None:
        """Weights of examples [members, rows] in the loss; None where all count alike."""
        if self._class_weights is None:
            return places
        weights = self._class_weights.gather(1, y)
        return weights if places is None else weights * places

    def train_epoch(self) -> tuple[list[float], list[float]]:
        """One pass over the training examples.

        Returns
        -------
        losses, learning_rates : list of float
            With dropout on; the rates of the last step.
        """
        totals = torch.zeros(2, len(self.members), device=self._device)
        rates = torch.zeros(len(self.members), 1, device=self._device)
        for step, batch in enumerate(self._batches.epoch(), self._epochs * self._batches.steps):
            rates = self._schedule.rates(step)
            loss, share = self._step(batch, rates)
            totals[0] += loss * share
            totals[1] += share
        self._epochs += 1
        return (totals[0] / totals[1]).tolist(), rates[:, 0].tolist()

    def _step(self, batch: Batch, rates: Tensor) -> tuple[Tensor, Tensor | float]:
        members = len(self.members)
        x = self._x.index_select(0, batch.rows).view(members, -1, self._x.shape[1])
        y = self._y.index_select(0, batch.rows).view(members, -1, *self._y.shape[1:])
        weights, share = _parts(self._weigh(y, batch.weights))
        tape = Tape(batch.weights)
        outputs = self.network.forward(x, self._masks.draw(x.shape[1]), tape)
        gradient, loss = self.objective.gradient(outputs, y, weights, self._smoothing)
        self._optimiser.step(self.network.backward(tape, gradient), rates)
        self.network.track(tape)
        if self._max_norms is not None:
            self.network.limit_norms(self._max_norms)
        return loss, float(x.shape[1]) if share is None else share

    def validate(self) -> tuple[list[float], list[float]]:
        """Losses and scores of every member on its validation examples, without dropout."""
        x, y = self._held_out
        outputs = self.network.evaluate(x)
        losses: list[float] = self.objective.loss(outputs, y, self._held_out_weights).tolist()
        self._schedule.observe(np.array(losses))
        return losses, self.objective.score(outputs, y, self._held_out_parts).tolist()

    def select(self, places: Sequence[int]) -> None:
        """Go on with some of the members only, given by their places among those still in training."""
        chosen = list(places)
        state = {name: array[chosen] for name, array in self.state().items()}
        self._keep(chosen)
        self._restore(state)

    def _keep(self, places: Sequence[int]) -> None:
        self.numbers = [self.numbers[place] for place in places]
        self.members = [self.members[place] for place in places]
        self.network = self.network.holding(self.network.parameters[list(places)])
        self._batches.select(places)
        self._masks.select(places)
        self._prepare()

    def state(self) -> Arrays:
        """All that the rest of the run depends on, but for the epochs done; each array [members, ...]."""
        tensors = {"parameters": self.network.parameters} | self._optimiser.buffers()
        return {name: tensor.cpu().numpy() for name, tensor in tensors.items()} | {
            "order": self._batches.state(),
            "masks": self._masks.state(),
            "schedule": self._schedule.state(),
        }

    def restore(self, numbers: Sequence[int], epochs: int, state: Arrays) -> None:
        """Go on, in a fleet just made, from where `state` was taken after `epochs` with the members left."""
        self._epochs = epochs
        self._keep([self.numbers.index(number) for number in numbers])
        self._restore(state)

    def _restore(self, state: Arrays) -> None:
        tensors = {"parameters": self.network.parameters} | self._optimiser.buffers()
        for name, tensor in tensors.items():
            tensor.copy_(torch.from_numpy(state[name]))
        self._batches.restore(state["order"])
        self._masks.restore(state["masks"])
        self._schedule.restore(state["schedule"])


def _parts(weights: Tensor | None) -> tuple[Tensor | None, Tensor | None]:
    """Weights [members, rows] as parts of their sums, and the sums [members]."""
    if weights is None:
        return None, None
    sums = weights.sum(dim=1)
    # A member with fewer examples than steps has none in some: nothing to learn there.
    return weights / sums.clamp(min=torch.finfo(torch.float32).tiny).unsqueeze(1), sums
