"""Rows that are computed together."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dropserve_models.inference.estimate import Rows
from dropserve_models.inference.workspace import ROW_MULTIPLE


@dataclass(frozen=True, slots=True)
class Part:
    """Rows computed together.

    Attributes
    ----------
    boundary : dict of Tensor [units, 1, columns]
        Columns beside those of the rows only pad them to a multiple of `ROW_MULTIPLE`.
    columns, rows : slice or ndarray of int
        Where the rows are in the boundary, and their places in the request.
    """

    boundary: dict[str, Tensor]
    columns: Rows
    rows: Rows

    @classmethod
    def of(cls, boundary: dict[str, Tensor], start: int, stop: int) -> Part:
        """Consecutive rows of the boundary."""
        values = {name: value[..., start:stop] for name, value in boundary.items()}
        return cls(values, slice(None), slice(start, stop))

    def with_values(self, values: Mapping[str, Tensor]) -> Part:
        """The same rows with more values [units, 1, columns]."""
        return Part({**self.boundary, **values}, self.columns, self.rows)

    def chosen(self, value: Tensor, passes: int) -> Tensor:
        """These rows of a value [outputs, passes or 1, columns]; what all passes share is repeated."""
        return (value.expand(-1, passes, -1) if value.shape[1] == 1 else value)[..., self.columns]

    def without(self, done: NDArray[np.bool_]) -> Part | None:
        """The rows that are not done; None where all are."""
        left = np.flatnonzero(~done)
        if len(left) == len(done):
            return self
        if not len(left):
            return None
        columns = self._listed(self.columns, len(done))[left]
        rows = self._listed(self.rows, len(done))[left]
        padding = -len(left) % ROW_MULTIPLE
        width = next(iter(self.boundary.values())).shape[-1]
        if len(left) + padding >= width:
            return Part(self.boundary, columns, rows)
        index = torch.from_numpy(np.concatenate([columns, np.repeat(columns[-1:], padding)]))
        values = {name: value.index_select(-1, index) for name, value in self.boundary.items()}
        return Part(values, slice(len(left)), rows)

    @staticmethod
    def _listed(rows: Rows, count: int) -> NDArray[np.intp]:
        return np.arange(rows.start or 0, (rows.start or 0) + count) if isinstance(rows, slice) else rows
