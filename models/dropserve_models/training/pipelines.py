"""Pipelines fitted to one table, as many at once as memory allows."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch

from dropserve_models.errors import ConfigError
from dropserve_models.inference.deterministic import Device
from dropserve_models.training.batches import Index
from dropserve_models.training.checkpoint import CheckpointFolder
from dropserve_models.training.config import TrainingConfig
from dropserve_models.training.device import training_device
from dropserve_models.training.encoding import Encoding
from dropserve_models.training.fit import Epoch, History, OnEpoch, fit
from dropserve_models.training.fleet import Examples, Member, fleet_key
from dropserve_models.training.layout import Layout
from dropserve_models.training.losses import CrossEntropy, GaussianNoise, Objective, SquaredError
from dropserve_models.training.outlier import outlier
from dropserve_models.training.pipeline import Pipeline
from dropserve_models.training.split import Split
from dropserve_models.training.standardise import Scaling
from dropserve_models.training.table import Table
from dropserve_models.training.task import Goal
from dropserve_models.training.threads import limited_threads

FLEET_BYTES = 2**30
"""About what a fleet may take; a single member may take more."""


@dataclass(frozen=True, slots=True)
class Fit:
    """A model to be fitted.

    Attributes
    ----------
    split : Split
        The rows to learn from, on whose scale, and to validate on.
    config : TrainingConfig
    seed : SeedSequence
    name : str
        For messages.
    """

    split: Split
    config: TrainingConfig
    seed: np.random.SeedSequence
    name: str = ""


@dataclass(frozen=True, slots=True)
class Fitted:
    """What became of it.

    Attributes
    ----------
    fit : Fit
    pipeline : Pipeline
    history : History
    cause : str or None
        Where training diverged: the value in the validation rows that is to blame, if it is one.
    """

    fit: Fit
    pipeline: Pipeline
    history: History
    cause: str | None = None

    def check_converged(self) -> None:
        """Refuse a model that diverged.

        Raises
        ------
        ConfigError
            Names the epoch.
        """
        if self.history.diverged is not None:
            where = f" of {self.fit.name}" if self.fit.name else ""
            remedy = self.cause or f"lower learning_rate (it is {self.fit.config.learning_rate:g})"
            raise ConfigError(
                f"training diverged in epoch {self.history.diverged}{where}: the loss is no longer finite; "
                f"{remedy}"
            )


def fit_pipelines(
    table: Table,
    goal: Goal,
    fits: Sequence[Fit],
    *,
    device: Device = "auto",
    on_epoch: OnEpoch = lambda epochs: (),
    checkpoints: CheckpointFolder | None = None,
    stage: str = "fit",
) -> list[Fitted]:
    """Fit a pipeline for each of `fits`: columns encoded by its training rows, and a network.

    Those that differ in `fleet.MEMBER_OPTIONS` at most are trained as one fleet.

    Parameters
    ----------
    on_epoch : callable
        Told of the epochs of each fit by its number; see `fit.OnEpoch`.
    checkpoints : CheckpointFolder, optional
        To go on from, and to keep the state of the fleets in.
    stage : str
        Tells their files from those of other calls.

    Raises
    ------
    ConfigError
        An option does not fit the goal.
    DeviceError
        The device is not there.
    CheckpointError
        A checkpoint can't be read or written, or is of another run.
    """
    fitted: dict[int, Fitted] = {}
    for position, numbers in enumerate(_fleets(table, goal, fits)):
        fleet = [fits[number] for number in numbers]
        config = fleet[0].config
        objective = make_objective(goal, config)
        scaled = _Scaled(table, goal, layout_of(table, config))
        members = [
            Member(one.config, *scaled.examples_of(one.split), one.seed, _class_weights(goal, one))
            for one in fleet
        ]
        parameters = len(fleet) * _parameters(table, config, objective)
        with limited_threads(parameters, config.batch_size):
            trained = fit(
                members,
                scaled.examples(),
                objective,
                device=training_device(device, parameters, config.batch_size),
                on_epoch=_renumbered(on_epoch, numbers),
                checkpoint=None if checkpoints is None else checkpoints.open(f"{stage}-{position + 1}"),
            )
        for place, number in enumerate(numbers):
            encoding, target_scaling = scaled.scalings(fleet[place].split)
            network = trained.network.holding(trained.network.parameters[place : place + 1].clone())
            for embedding, weights in zip(network.tables, encoding.averages(), strict=True):
                embedding[0, -1] = torch.from_numpy(weights) @ embedding[0, :-1]
            pipeline = Pipeline(
                task=goal.task,
                feature_names=table.feature_names,
                output_names=goal.output_names,
                encoding=encoding,
                target_scaling=target_scaling,
                network=network,
                drop_rates=fleet[place].config.drop_rates,
                objective=objective,
            )
            history, validation = trained.histories[place], fleet[place].split.validation
            cause = None if history.diverged is None else outlier(table, validation, encoding)
            fitted[number] = Fitted(fleet[place], pipeline, history, cause)
    return [fitted[number] for number in range(len(fits))]


def make_objective(goal: Goal, config: TrainingConfig) -> Objective:
    """What to minimise.

    Raises
    ------
    ConfigError
        An option of classifiers is given for regression.
    """
    if goal.is_classification:
        return CrossEntropy(len(goal.output_names))
    for option in ("label_smoothing", "class_weights"):
        if getattr(config, option) not in (0.0, "none"):
            raise ConfigError(f"{option} is for classifiers; this is regression: {goal.reason}")
    targets = len(goal.output_names)
    return SquaredError(targets) if config.loss == "mse" else GaussianNoise(targets)


class _Scaled:
    """Copies of a table, each encoded by some of its rows, as the examples of a fleet."""

    def __init__(self, table: Table, goal: Goal, layout: Layout) -> None:
        self._table = table
        self._goal = goal
        self._layout = layout
        self._copies: dict[bytes, tuple[int, Encoding, Scaling | None]] = {}

    def scalings(self, split: Split) -> tuple[Encoding, Scaling | None]:
        """Of the features, and of the targets for regression."""
        return self._copy(split)[1:]

    def examples_of(self, split: Split) -> tuple[Index, Index]:
        """The numbers of the training and validation examples in `examples`."""
        offset = self._copy(split)[0] * self._table.rows
        return split.training + offset, split.validation + offset

    def _copy(self, split: Split) -> tuple[int, Encoding, Scaling | None]:
        key = split.training.tobytes()
        if key not in self._copies:
            features = Encoding.of(self._table.features[split.training], self._layout)
            targets = None if self._goal.is_classification else Scaling.of(self._goal.values[split.training])
            self._copies[key] = len(self._copies), features, targets
        return self._copies[key]

    def examples(self) -> Examples:
        """All copies, one after the other."""
        x = np.concatenate([encoding.apply(self._table.features) for _, encoding, _ in self._copies.values()])
        values = self._goal.values
        y = np.concatenate(
            [values if scaling is None else scaling.apply(values) for *_, scaling in self._copies.values()]
        )
        return Examples(torch.from_numpy(x), torch.from_numpy(y), self._layout.embeddings)


def _fleets(table: Table, goal: Goal, fits: Sequence[Fit]) -> list[list[int]]:
    """Numbers of the fits that are trained together."""
    by_key: dict[str, list[int]] = {}
    for number, one in enumerate(fits):
        by_key.setdefault(f"{fleet_key(one.config)} {len(one.split.validation) > 0}", []).append(number)
    fleets = []
    for numbers in by_key.values():
        config = fits[numbers[0]].config
        parameters = _parameters(table, config, make_objective(goal, config))
        # Weights, the best ones, gradients and the optimiser's buffers; a copy of the table; activations.
        inputs = layout_of(table, config).inputs
        units = inputs + sum(config.hidden)
        floats = 7 * parameters + table.rows * inputs + 6 * units * config.batch_size
        size = max(1, FLEET_BYTES // (4 * floats))
        fleets += [numbers[start : start + size] for start in range(0, len(numbers), size)]
    return fleets


def _parameters(table: Table, config: TrainingConfig, objective: Objective) -> int:
    layout = layout_of(table, config)
    sizes = (layout.inputs, *config.hidden, objective.outputs)
    embedded = sum(positions * width for positions, width in layout.embeddings)
    return embedded + sum((inputs + 1) * outputs for inputs, outputs in pairwise(sizes))


def layout_of(table: Table, config: TrainingConfig) -> Layout:
    """How the columns become a network's inputs."""
    limit = config.level_off if config.hidden else 0.0  # a linear model is to be linear
    return Layout.of(table.columns, table.features.shape[1], config.embedding_width, limit)


def _class_weights(goal: Goal, fit: Fit) -> tuple[float, ...] | None:
    given, classes = fit.config.class_weights, len(goal.output_names)
    if given == "none":
        return None
    if given == "balanced":
        counts = np.bincount(goal.values[fit.split.training].astype(np.int64), minlength=classes)
        return tuple((counts.sum() / (classes * counts.clip(min=1))).tolist())
    if len(given) != classes:
        raise ConfigError(
            f"class_weights has {len(given)} numbers for {classes} classes: {', '.join(goal.output_names)}"
        )
    return tuple(given)


def _renumbered(on_epoch: OnEpoch, numbers: Sequence[int]) -> OnEpoch:
    places = {number: place for place, number in enumerate(numbers)}

    def renumbered(epochs: Mapping[int, Epoch]) -> Collection[int]:
        leaving = on_epoch({numbers[place]: epoch for place, epoch in epochs.items()})
        return [places[number] for number in leaving]

    return renumbered
