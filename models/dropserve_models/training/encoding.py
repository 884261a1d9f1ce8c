"""Rows of a table as a network's inputs: scales, rates and frequencies measured on training rows."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from dropserve_models.training.layout import Categorical, Layout
from dropserve_models.training.levelling import level_off
from dropserve_models.training.standardise import Scaling
from dropserve_models.training.table import Floats


@dataclass(frozen=True, slots=True)
class Encoding:
    """What is done to the columns before the first linear layer.

    Numbers are standardised, and level off far from the mean; a missing one is the mean, and an indicator
    beside it is 1. A category is a
    one-hot vector, or a position in an embedding; missing is a category of its own. Indicators and one-hot
    units are centred, so that 0 is the average of the training rows for every input. A category, or a missing
    value, that no training row had is encoded as that average: of the one-hot vectors, or of the embeddings.
    So is a number in a column of which no training row had a value: no weight has been learned for it.

    Attributes
    ----------
    layout : Layout
    scaling : Scaling
        Of the numbers.
    missing : ndarray [indicators]
        The part of the training rows whose value is missing.
    frequencies : tuple of ndarray [categories + 1]
        Of each categorical column, one-hot ones first: each category's part of the training rows, and the
        missing values'.
    """

    layout: Layout
    scaling: Scaling
    missing: Floats
    frequencies: tuple[Floats, ...]

    @classmethod
    def of(cls, features: Floats, layout: Layout) -> Self:
        """Measure training rows [rows, columns]."""
        numbers = features if layout.plain else features[:, list(layout.numbers)]
        indicated = np.isnan(numbers[:, list(layout.indicated)])
        frequencies = []
        for one in (*layout.one_hot, *layout.embedded):
            counts = np.bincount(_positions(features, one), minlength=one.positions)[: one.unseen]
            frequencies.append((counts / max(counts.sum(), 1)).astype(np.float32))
        scaling = Scaling.of(numbers)
        unheard_of = np.isnan(numbers).all(axis=0)
        scaling = replace(scaling, std=np.where(unheard_of, np.float32(np.inf), scaling.std))
        return cls(layout, scaling, indicated.mean(axis=0).astype(np.float32), tuple(frequencies))

    def apply(self, features: Floats) -> Floats:
        """The inputs [rows, plain inputs + embedded columns], a column's position for each embedding."""
        layout = self.layout
        if layout.plain:
            return self._level(features)
        numbers = features[:, list(layout.numbers)]
        indicated = np.isnan(numbers[:, list(layout.indicated)])
        parts: list[NDArray[Any]] = [
            np.nan_to_num(self._level(numbers)),
            (indicated - self.missing) * self.telling,
        ]
        frequencies = iter(self.frequencies)
        parts += [one_hot_table(one, next(frequencies))[_positions(features, one)] for one in layout.one_hot]
        parts += [
            seen_positions(one, next(frequencies))[_positions(features, one)][:, None]
            for one in layout.embedded
        ]
        return np.concatenate(parts, axis=1, dtype=np.float32, casting="same_kind")

    @property
    def telling(self) -> NDArray[np.bool_]:
        """The indicators [indicators] that were both 0 and 1 in the training rows."""
        told: NDArray[np.bool_] = (self.missing > 0.0) & (self.missing < 1.0)
        return told

    def _level(self, numbers: Floats) -> Floats:
        return level_off(self.scaling.apply(numbers), self.layout.limit)

    def averages(self) -> list[Floats]:
        """For each embedding, each position's weight [positions - 1] in the average of the training rows."""
        return list(self.frequencies[len(self.layout.one_hot) :])

    def constant(self) -> NDArray[np.intp]:
        """The columns that have a single value in the training rows."""
        layout = self.layout
        alone = self.scaling.constant.copy()
        alone[list(layout.indicated)] &= ~self.telling  # that a value is missing may tell something
        found = [index for index, is_constant in zip(layout.numbers, alone, strict=True) if is_constant]
        pairs = zip((*layout.one_hot, *layout.embedded), self.frequencies, strict=True)
        found += [one.index for one, frequencies in pairs if frequencies.max() == 1.0]
        return np.array(sorted(found), np.intp)


def one_hot_table(one: Categorical, frequencies: Floats) -> Floats:
    """What each position of a one-hot column is encoded as, [positions, units]."""
    table = np.zeros((one.positions, one.units), np.float32)
    weights = frequencies[: one.units]
    for position in np.flatnonzero(weights):
        table[position] = -weights
        table[position, position] += 1.0
    return table


def seen_positions(one: Categorical, frequencies: Floats) -> NDArray[np.intp]:
    """Each position, or that of the unseen where no training row had it."""
    return np.append(np.where(frequencies > 0.0, np.arange(one.unseen), one.unseen), one.unseen)


def _positions(features: Floats, one: Categorical) -> NDArray[np.intp]:
    """The position of every row's code."""
    codes = features[:, one.index]
    valid = (codes >= 0) & (codes < one.categories) & (codes == np.floor(codes))
    others = np.where(np.isnan(codes), one.missing, one.unseen)
    return np.where(valid, codes, others).astype(np.intp)
