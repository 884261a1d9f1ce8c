"""Settings, chosen by the product's own search."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from benchmarks.uncertainty.effort import Effort
from benchmarks.uncertainty.figures import Figures
from dropserve_models.training.config import TrainingConfig
from dropserve_models.training.search.options import SearchOptions
from dropserve_models.training.search.report import report
from dropserve_models.training.search.search import search
from dropserve_models.training.split import Split
from dropserve_models.training.table import Table
from dropserve_models.training.task import Goal


def choose(
    figures: Figures,
    table: Table,
    goal: Goal,
    splits: Sequence[Split],
    effort: Effort,
    config: TrainingConfig | None = None,
    metric: str | None = None,
) -> list[TrainingConfig]:
    """A configuration for each split, found on training rows alone; what the search says is printed."""
    if config is None:
        config = TrainingConfig() if effort.epochs is None else TrainingConfig(epochs=effort.epochs)
    searched = splits if effort.every_split else splits[:1]
    chosen = []
    for number, split in enumerate(searched):
        found = search(
            table,
            goal,
            config,
            SearchOptions(trials=effort.trials, metric=metric),
            np.random.SeedSequence(number),
            rows=split.training,
            device="cpu",
        )
        figures.say("\n".join(report(found)))
        chosen.append(found.config)
    return chosen if effort.every_split else chosen * len(splits)
