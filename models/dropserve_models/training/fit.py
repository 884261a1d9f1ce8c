"""The training loop."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch

from dropserve_models.training.checkpoint import Checkpoint
from dropserve_models.training.denormals import flushed_denormals
from dropserve_models.training.fleet import Arrays, Examples, Fleet, Member
from dropserve_models.training.losses import Objective
from dropserve_models.training.network import Network


@dataclass(frozen=True, slots=True)
class Epoch:
    """What one epoch came to.

    Attributes
    ----------
    number : int
        Counted from 1.
    learning_rate : float
        Of the last step.
    loss : float
        Like the validation loss, on the training examples with dropout on.
    validation_loss, score : float or None
        On the validation examples, where there are any.
    """

    number: int
    learning_rate: float
    loss: float
    validation_loss: float | None = None
    score: float | None = None


@dataclass(slots=True)
class History:
    """Every epoch, and the one whose weights were kept."""

    metric: str
    epochs: list[Epoch] = field(default_factory=list)
    best: Epoch | None = None
    diverged: int | None = None
    """The epoch in which the loss stopped being finite."""


OnEpoch = Callable[[Mapping[int, Epoch]], Collection[int]]
"""Told, by member, of an epoch that was done; answers which members are to leave, keeping their best."""


@dataclass(frozen=True, slots=True)
class Trained:
    """A fleet with the weights that were kept, on the CPU, and how each of its members came to them."""

    network: Network
    histories: list[History]


def fit(
    members: Sequence[Member],
    examples: Examples,
    objective: Objective,
    *,
    device: torch.device | str = "cpu",
    on_epoch: OnEpoch = lambda epochs: (),
    checkpoint: Checkpoint | None = None,
) -> Trained:
    """Train a fleet; each member ends with the weights of its epoch of the lowest validation loss.

    Without validation examples it ends with those of the last epoch. A member leaves when its `patience` is
    exhausted, when its loss stops being finite, or when `on_epoch` says so.

    The same members, on the same machine and library versions, give the same weights bit for bit, also when
    the run was killed and goes on from its checkpoint.

    Parameters
    ----------
    members : sequence of Member
        Their configurations differ in `fleet.MEMBER_OPTIONS` at most.
    examples : Examples
    objective : Objective
    device : torch.device or str
    on_epoch : callable
    checkpoint : Checkpoint, optional
        To go on from, and to keep the state of the run in.

    Raises
    ------
    CheckpointError
        The checkpoint can't be read or written, or is of another run.
    """
    with torch.inference_mode(), flushed_denormals():
        run = _Run(members, examples, objective, device)
        if checkpoint is not None:
            saved = checkpoint.load()
            if saved is not None:
                run.restore(saved)
        while run.goes_on():
            epochs = run.epoch()
            run.leave(set(on_epoch(epochs)))
            if checkpoint is not None and (checkpoint.due() or not run.goes_on()):
                checkpoint.save(run.state())
    return Trained(run.fleet.network.holding(run.kept.cpu().clone()), run.histories)


class _Run:
    """The fleet, and what is known of every member, those that have left included."""

    def __init__(
        self, members: Sequence[Member], examples: Examples, objective: Objective, device: torch.device | str
    ) -> None:
        self.fleet = Fleet(members, examples, objective, device)
        self.histories = [History(objective.metric) for _ in members]
        self.kept = self.fleet.network.parameters.clone()
        self._members = members
        self._done = 0

    def goes_on(self) -> bool:
        return bool(self.fleet.numbers) and self._done < self._members[0].config.epochs

    def epoch(self) -> dict[int, Epoch]:
        """Train and validate once; the members that end of themselves have left."""
        losses, rates = self.fleet.train_epoch()
        validation = self.fleet.validate() if self.fleet.validates else None
        self._done += 1
        epochs: dict[int, Epoch] = {}
        better, ended = [], set()
        for place, number in enumerate(self.fleet.numbers):
            held_out = (None, None) if validation is None else (validation[0][place], validation[1][place])
            epoch = Epoch(self._done, rates[place], losses[place], *held_out)
            history = self.histories[number]
            if not math.isfinite(epoch.loss) or not math.isfinite(epoch.validation_loss or 0.0):
                history.diverged = epoch.number
                ended.add(number)
                continue
            epochs[number] = epoch
            history.epochs.append(epoch)
            if _improves(history.best, epoch):
                history.best = epoch
                better.append(place)
            elif epoch.number - (history.best or epoch).number >= self._members[number].config.patience:
                ended.add(number)
        if len(better) == len(self.kept):
            self.kept.copy_(self.fleet.network.parameters)
        elif better:
            numbers = [self.fleet.numbers[place] for place in better]
            self.kept[numbers] = self.fleet.network.parameters[better]
        self.leave(ended)
        return epochs

    def leave(self, numbers: Collection[int]) -> None:
        """Go on without these members."""
        staying = [place for place, number in enumerate(self.fleet.numbers) if number not in numbers]
        if not staying:
            self.fleet.numbers = []
        elif len(staying) < len(self.fleet.numbers):
            self.fleet.select(staying)

    def state(self) -> Arrays:
        """Everything, as arrays."""
        fleet = {f"fleet/{name}": array for name, array in self.fleet.state().items()}
        epochs = [
            (number, epoch.number, epoch.learning_rate, epoch.loss, epoch.validation_loss, epoch.score)
            for number, history in enumerate(self.histories)
            for epoch in history.epochs
        ]
        marks = [
            (history.best.number if history.best else 0, history.diverged or 0) for history in self.histories
        ]
        return fleet | {
            "kept": self.kept.cpu().numpy(),
            "numbers": np.array(self.fleet.numbers, np.int64),
            "done": np.array(self._done),
            "epochs": np.array(epochs, np.float64).reshape(-1, 6),
            "marks": np.array(marks, np.int64),
        }

    def restore(self, state: Arrays) -> None:
        """Go on from where `state` was taken."""
        self._done = int(state["done"])
        self.kept.copy_(torch.from_numpy(state["kept"]))
        for number, *values in state["epochs"].tolist():
            rest = (None if np.isnan(value) else value for value in values[3:])
            self.histories[int(number)].epochs.append(Epoch(int(values[0]), *values[1:3], *rest))
        for history, (best, diverged) in zip(self.histories, state["marks"].tolist(), strict=True):
            history.best = history.epochs[best - 1] if best else None
            history.diverged = diverged or None
        if not len(state["numbers"]):
            self.fleet.numbers = []
            return
        prefix = "fleet/"
        fleet = {name.removeprefix(prefix): array for name, array in state.items() if name.startswith(prefix)}
        self.fleet.restore(state["numbers"].tolist(), self._done, fleet)


def _improves(best: Epoch | None, epoch: Epoch) -> bool:
    if best is None or best.validation_loss is None or epoch.validation_loss is None:
        return True
    return epoch.validation_loss < best.validation_loss
