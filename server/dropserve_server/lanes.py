"""The lanes of a server: how deterministic and Monte Carlo computing are set up beside each other."""

from __future__ import annotations

from functools import partial

from dropserve_server.lane import Batching, Lane
from dropserve_server.metrics import DETERMINISTIC, MONTE_CARLO
from dropserve_server.settings import Settings

# What is computed in one go holds others up for so long. Cutting finer costs a Monte Carlo request more: the
# masks of its passes are looked up, and their weights gathered, for every slice.
_DETERMINISTIC_TURN_SECONDS = 0.004
_MONTE_CARLO_TURN_SECONDS = 0.02
_MONTE_CARLO_NICENESS = 10  # below the threads that answer deterministic requests
_INLINE_SECONDS = 250e-6


def lanes_of(settings: Settings) -> tuple[Lane, Lane]:
    """Deterministic and Monte Carlo computing."""
    batching = partial(Batching, rows=settings.max_batch_rows, delay_seconds=settings.batch_delay)
    bounds = settings.queue_rows, settings.queue_seconds
    return (
        Lane(
            DETERMINISTIC,
            settings.deterministic_workers,
            *bounds,
            batching(turn_seconds=_DETERMINISTIC_TURN_SECONDS, inline_seconds=_INLINE_SECONDS),
        ),
        Lane(
            MONTE_CARLO,
            settings.monte_carlo_workers,
            *bounds,
            batching(turn_seconds=_MONTE_CARLO_TURN_SECONDS, niceness=_MONTE_CARLO_NICENESS),
        ),
    )
