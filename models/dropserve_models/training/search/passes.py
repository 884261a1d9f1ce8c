"""Monte Carlo passes of many fitted pipelines at once, each on rows of its own."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch import Tensor

from dropserve_models.training.batches import Index
from dropserve_models.training.masks import MaskStream
from dropserve_models.training.pipelines import Fitted
from dropserve_models.training.randomness import derive
from dropserve_models.training.table import Table


def passes_of(
    fitted: Sequence[Fitted], index: Index, table: Table, passes: int, seed: np.random.SeedSequence
) -> Iterator[Tensor]:
    """The networks' outputs in each pass, [members, rows, outputs], by independent masks.

    Parameters
    ----------
    fitted : sequence of Fitted
        All of one network shape.
    index : ndarray [members, rows]
        Numbers of the table's rows.
    passes : int
        A single one is computed where nothing is dropped.
    """
    network = fitted[0].pipeline.network.holding(
        torch.cat([one.pipeline.network.parameters for one in fitted])
    )
    x = torch.from_numpy(
        np.stack(
            [
                one.pipeline.encoding.apply(table.features[rows])
                for one, rows in zip(fitted, index, strict=True)
            ]
        )
    )
    rates = [one.pipeline.drop_rates for one in fitted]
    masks = MaskStream(rates, network.sizes[:-1], derive(seed, len(rates)))
    drops = any(rate > 0.0 for row in rates for rate in row)
    for _ in range(passes if drops else 1):
        with torch.inference_mode():
            outputs = network.forward(x, masks.draw(x.shape[1]))
        yield outputs
