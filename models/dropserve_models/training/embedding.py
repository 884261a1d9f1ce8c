"""Embeddings of categories: rows of tables of parameters, and their gradient."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def embed(tables: Sequence[Tensor], x: Tensor) -> tuple[Tensor, Tensor]:
    """Put embeddings in the place of positions.

    Parameters
    ----------
    tables : sequence of Tensor [members, positions, width]
    x : Tensor [members, rows, others + tables]
        The last columns are positions, one for each table.

    Returns
    -------
    inputs : Tensor [members, rows, others + widths]
    positions : Tensor of int64 [members, rows, tables]
    """
    positions = x[..., x.shape[2] - len(tables) :].long()
    parts = [x[..., : x.shape[2] - len(tables)]]
    for number, table in enumerate(tables):
        index = positions[..., number, None].expand(-1, -1, table.shape[2])
        parts.append(table.gather(1, index))
    return torch.cat(parts, dim=2), positions


def add_up(gradient: Tensor, positions: Tensor, leaves: Sequence[Tensor]) -> None:
    """Gradients with respect to the tables, into `leaves`, given that with respect to the inputs."""
    end = gradient.shape[2]
    for number in reversed(range(len(leaves))):
        leaf = leaves[number]
        start = end - leaf.shape[2]
        index = positions[..., number, None].expand(-1, -1, leaf.shape[2])
        leaf.zero_().scatter_add_(1, index, gradient[..., start:end])
        end = start
