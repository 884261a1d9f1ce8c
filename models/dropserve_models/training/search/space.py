"""What a search chooses between: options with ranges, as points of a unit cube, in a few network shapes."""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray
from pydantic import ValidationError

from dropserve_models.errors import ConfigError
from dropserve_models.training.config import TrainingConfig

Point = NDArray[np.float64]
"""[dimensions], each in [0, 1]."""

Shape: TypeAlias = tuple[tuple[int, ...], int, int]

SHAPE_OPTIONS = ("hidden", "epochs", "batch_size")
HIDDEN: tuple[tuple[int, ...], ...] = ((100, 100), (50, 50), (100,))
STEPS = (1500, 6000)
"""Of the optimiser, in a short and in a long run: what epochs are chosen by."""
LONGEST = 2
"""Times as many epochs as the long run: for settings that are known to do well."""

RECIPES: tuple[tuple[float, float, float | None, float, float], ...] = (
    (0.2, 0.0, None, 1.0, 2.0),
    (0.05, 0.0, None, 1.0, 2.0),
    (0.1, 0.0, None, 1.0, 2.0),
    (0.15, 0.17, 3.0, 10.0, 2.0),
    (0.02, 0.0, None, 1.0, 3.0),
    (0.005, 0.0, None, 0.3, 4.0),
    (0.4, 0.1, None, 3.0, 2.0),
    (0.01, 0.12, 1.5, 1.0, 3.0),
)
"""What did well elsewhere, and is tried first: drop rates of hidden layers and input, max-norm, factors of
the usual weight decay and learning rate. The hidden layers' rates sweep what is reasonable."""

FASTEST = 6.0
"""Learning rate, beside the one given: some settings like it high, and those that diverge are given up."""

FEWEST_EPOCHS, MOST_EPOCHS = 5, 400


@dataclass(frozen=True, slots=True)
class Axis:
    """An option on a logarithmic scale, or, below `off_share` of the axis, switched off.

    Attributes
    ----------
    off : float or None
        The option's value there.
    reverse : bool
        Whether the largest value is the one next to being off, as for a bound.
    """

    option: str
    low: float
    high: float
    off_share: float = 0.0
    off: float | None = None
    reverse: bool = False

    def value(self, place: float) -> float | None:
        """The option's value at a place in [0, 1]."""
        if place < self.off_share:
            return self.off
        part = (place - self.off_share) / (1.0 - self.off_share)
        part = 1.0 - part if self.reverse else part
        return float(f"{self.low * (self.high / self.low) ** part:.3g}")

    def place(self, value: float | None) -> float:
        """Where a value lies; the nearest place for one that is out of range."""
        if self.off_share and (value == self.off or value is None):
            return self.off_share / 2.0  # all of them are the same
        part = math.log(max(value or 0.0, self.low) / self.low) / math.log(self.high / self.low)
        part = 1.0 - part if self.reverse else part
        return self.off_share + min(max(part, 0.0), 1.0) * (1.0 - self.off_share)


class Space:
    """The options that are chosen, with their ranges; all others are as in `config`.

    Parameters
    ----------
    config : TrainingConfig
    given : collection of str
        Options that the user has decided on.
    rows : int
        To learn from.

    Raises
    ------
    ConfigError
        Nothing is left to choose.
    """

    def __init__(self, config: TrainingConfig, given: Collection[str], rows: int) -> None:
        self._config = config
        rate, decay = config.learning_rate, max(config.weight_decay, 1e-6)
        axes = (
            # Not 0: a model that drops nothing has no error bars.
            Axis("hidden_drop", 0.002, 0.6),
            Axis("input_drop", 0.01, 0.4, off_share=0.5, off=0.0),
            Axis("weight_decay", decay / 30.0, decay * 10.0),
            Axis("learning_rate", rate / 3.0, rate * FASTEST),
            Axis("max_norm", 1.0, 6.0, off_share=0.6, reverse=True),
        )
        self.axes = tuple(
            axis
            for axis in axes
            if axis.option not in given and (config.hidden or axis.option != "hidden_drop")
        )
        self.shapes, self.explored = _shapes(config, given, rows)
        if not self.axes and len(self.shapes) == 1:
            raise ConfigError("there is nothing to search: every option that a search chooses is given")

    @property
    def dimensions(self) -> int:
        """Of a point."""
        return len(self.axes)

    def usual(self) -> TrainingConfig:
        """The configuration given, in the first shape."""
        return self._config.model_copy(update=self._update(0))

    def recipes(self, shapes: int) -> list[TrainingConfig]:
        """`RECIPES`, as far as options are not given; turn by turn in the first two shapes."""
        found = []
        for place, (hidden, entering, bound, decay, rate) in enumerate(RECIPES):
            options = {
                "hidden_drop": (hidden,),
                "input_drop": entering,
                "max_norm": bound,
                "weight_decay": decay * self._config.weight_decay,
                "learning_rate": rate * self._config.learning_rate,
            }
            searched = {axis.option: options[axis.option] for axis in self.axes}
            found.append(self.example(place % min(shapes, 2)).model_copy(update=searched))
        return found

    def example(self, shape: int) -> TrainingConfig:
        """Some configuration of that shape."""
        return self._config.model_copy(update=self._update(shape))

    def shape_of(self, config: TrainingConfig) -> int:
        """The number of a configuration's shape."""
        return self.shapes.index((config.hidden, config.epochs, config.batch_size))

    def _update(self, shape: int) -> dict[str, Any]:
        return dict(zip(SHAPE_OPTIONS, self.shapes[shape], strict=True))

    def at(self, shape: int, point: Point) -> TrainingConfig:
        """The configuration at a point, in a shape given by its number."""
        update = self._update(shape)
        for axis, place in zip(self.axes, point.tolist(), strict=True):
            value = axis.value(place)
            update[axis.option] = (value,) if axis.option == "hidden_drop" else value
        return self._config.model_copy(update=update)

    def point(self, config: TrainingConfig) -> Point:
        """Where a configuration lies, as far as the axes tell."""
        values = {axis.option: getattr(config, axis.option) for axis in self.axes}
        if "hidden_drop" in values:
            values["hidden_drop"] = config.hidden_drop[0]
        return np.array([axis.place(values[axis.option]) for axis in self.axes])

    def coordinates(self, configs: Sequence[TrainingConfig]) -> NDArray[np.float64]:
        """What a model of the scores learns from: points, and the shapes as numbers, [configs, ...]."""
        lines = [
            [
                *self.point(config),
                math.log2(max(config.hidden, default=1)) / 4.0,
                len(config.hidden) / 2.0,
                math.log2(config.epochs) / 4.0,
            ]
            for config in configs
        ]
        return np.array(lines)


def _shapes(config: TrainingConfig, given: Collection[str], rows: int) -> tuple[tuple[Shape, ...], int]:
    """All shapes, and how many of them, the first ones, exploring is for."""
    batch_size = config.batch_size if "batch_size" in given else _batch_size(rows)
    steps = math.ceil(rows / batch_size)
    epochs, longest = [config.epochs], config.epochs
    if "epochs" not in given:
        epochs = [min(max(round(count / steps), FEWEST_EPOCHS), MOST_EPOCHS) for count in STEPS]
        longest = LONGEST * max(epochs)
    hidden = [config.hidden]
    if "hidden" not in given and len(config.hidden_drop) == 1:
        hidden = [layers for layers in HIDDEN if _fits(config, layers)]
    epochs, hidden = list(dict.fromkeys(epochs)), list(dict.fromkeys(hidden))
    # In little time only the first ones are tried: those that differ most come first.
    pairs = sorted(product(range(len(epochs)), range(len(hidden))), key=lambda pair: (pair[1] - pair[0]) % 3)
    explored = [(hidden[layers], epochs[count], batch_size) for count, layers in pairs]
    others = [(layers, longest, batch_size) for layers in hidden if longest not in epochs]
    return (*explored, *others), len(explored)


def _fits(config: TrainingConfig, hidden: tuple[int, ...]) -> bool:
    try:
        TrainingConfig.model_validate(config.model_dump() | {"hidden": hidden})
    except ValidationError:
        return False
    return True


def _batch_size(rows: int) -> int:
    for batch_size, most in ((16, 300), (32, 2000), (64, 20_000)):
        if rows <= most:
            return batch_size
    return 128
