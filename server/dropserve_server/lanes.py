"""The lanes of a server: how deterministic and Monte Carlo computing are set up beside each other."""

from __future__ import annotations

from functools import partial

from dropserve_models.inference.deterministic import available_cores
from dropserve_server.lane import Batching, Lane
from dropserve_server.metrics import DETERMINISTIC, MONTE_CARLO
from dropserve_server.room import Room
from dropserve_server.settings import Settings

# What is computed in one go holds others up for so long. Cutting finer costs a Monte Carlo request more: the
# masks of its passes are looked up, and their weights gathered, for every slice.
_DETERMINISTIC_TURN_SECONDS = 0.004
_MONTE_CARLO_TURN_SECONDS = 0.02
_MONTE_CARLO_NICENESS = 10  # below the threads that answer deterministic requests
_INLINE_SECONDS = 250e-6
_FEW_CORES = 4
"""Where there are no more, Monte Carlo leaves some to deterministic requests, while those come."""


def lanes_of(settings: Settings) -> tuple[Lane, Lane]:
    """Deterministic and Monte Carlo computing."""
    batching = partial(Batching, rows=settings.max_batch_rows, delay_seconds=settings.batch_delay)
    bounds = settings.queue_rows, settings.queue_seconds
    deterministic = Lane(
        DETERMINISTIC,
        settings.deterministic_workers,
        *bounds,
        batching(turn_seconds=_DETERMINISTIC_TURN_SECONDS, inline_seconds=_INLINE_SECONDS),
    )
    workers = settings.monte_carlo_workers
    # Niceness alone does not do: the two of them keep the caches and the interpreter busy, and both cores.
    few_cores = (settings.threads or available_cores()) <= _FEW_CORES
    room = Room(workers, workers - 1, lambda: deterministic.latest) if few_cores and workers > 1 else None
    monte_carlo = Lane(
        MONTE_CARLO,
        workers,
        *bounds,
        batching(turn_seconds=_MONTE_CARLO_TURN_SECONDS, niceness=_MONTE_CARLO_NICENESS),
        room,
    )
    return deterministic, monte_carlo
