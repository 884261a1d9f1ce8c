"""How the columns of a table become a network's inputs: numbers, indicators, one-hot units, embeddings."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from dropserve_models.columns import Column

MOST_ONE_HOT = 20
"""Categories up to which a column is one-hot encoded, unless a width is asked for."""
WIDEST = 50


def default_width(categories: int) -> int:
    """Units of an embedding, by fastai's rule: 1.6 n^.56, at most 50; 0, one-hot, for few categories."""
    return 0 if categories <= MOST_ONE_HOT else min(WIDEST, round(1.6 * categories**0.56))


@dataclass(frozen=True, slots=True)
class Categorical:
    """A column of categories.

    Attributes
    ----------
    index : int
        Of the column.
    categories : int
    has_missing : bool
        Whether a missing value is a category of its own.
    width : int
        Units of its embedding; 0: one-hot.
    """

    index: int
    categories: int
    has_missing: bool
    width: int

    @property
    def missing(self) -> int:
        """The position of a missing value, after those of the categories."""
        return self.categories

    @property
    def unseen(self) -> int:
        """The position of what was not among the training rows."""
        return self.categories + 1

    @property
    def positions(self) -> int:
        """How many there are: the categories, missing, and unseen."""
        return self.categories + 2

    @property
    def units(self) -> int:
        """How many inputs of the network encode it."""
        return self.width or self.categories + self.has_missing


@dataclass(frozen=True, slots=True)
class Layout:
    """Inputs of a network, in this order.

    Attributes
    ----------
    features : int
        Columns of the table.
    numbers : tuple of int
        Columns that are numbers.
    indicated : tuple of int
        Those of them, counted among the numbers, that have an input which says that the value is missing.
    one_hot, embedded : tuple of Categorical
    limit : float
        That standardised numbers level off at; 0 for none.
    """

    features: int
    numbers: tuple[int, ...]
    indicated: tuple[int, ...]
    one_hot: tuple[Categorical, ...]
    embedded: tuple[Categorical, ...]
    limit: float = 0.0

    @classmethod
    def of(
        cls, columns: Sequence[Column], features: int, width: int | None = None, limit: float = 0.0
    ) -> Layout:
        """The layout of a table's columns (none: all are numbers).

        `width` and `limit`: TrainingConfig's embedding_width and level_off.
        """
        columns = columns or (Column(),) * features
        numbers = tuple(index for index, column in enumerate(columns) if column.kind == "number")
        found = []
        for index, column in enumerate(columns):
            if column.kind == "category":
                count = len(column.categories)
                units = default_width(count) if width is None else width
                found.append(Categorical(index, count, column.accepts_missing, units))
        return cls(
            features,
            numbers,
            tuple(place for place, index in enumerate(numbers) if columns[index].accepts_missing),
            tuple(one for one in found if not one.width),
            tuple(one for one in found if one.width),
            limit,
        )

    @property
    def plain(self) -> bool:
        """Whether all columns are numbers, none of which may be missing."""
        return len(self.numbers) == self.features and not self.indicated

    @property
    def embeddings(self) -> tuple[tuple[int, int], ...]:
        """Positions and width of each embedding."""
        return tuple((one.positions, one.width) for one in self.embedded)

    @property
    def inputs(self) -> int:
        """How many inputs the first linear layer has."""
        units = sum(one.units for one in (*self.one_hot, *self.embedded))
        return len(self.numbers) + len(self.indicated) + units
