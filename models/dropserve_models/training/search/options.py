"""How long a search may take, and what it goes by."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from dropserve_models.errors import ConfigError

EXPLORE, REFINE = 0.5, 0.8
"""Parts of the budget by whose ends the whole space, and what is near the best, has been looked at."""


@dataclass(frozen=True, slots=True)
class SearchOptions:
    """Bounds of a search, at least one of them, and what it is for.

    Attributes
    ----------
    seconds : float or None
        After which nothing new is begun, and what can't be done by then is given up.
    trials : int or None
        Settings to try. Bounded by trials alone, the same seed finds the same settings.
    metric : str or None
        ``log_likelihood``, or ``rmse`` (regression) or ``accuracy`` (classifiers), of Monte Carlo
        predictions. None: log_likelihood where the model has one.

    Raises
    ------
    ConfigError
        A bound is missing or out of range.
    """

    seconds: float | None = None
    trials: int | None = None
    metric: str | None = None

    def __post_init__(self) -> None:
        if self.seconds is None and self.trials is None:
            raise ConfigError("a search needs a bound: seconds, or a number of trials")
        if self.seconds is not None and not 0.0 < self.seconds < math.inf:
            raise ConfigError(f"a search can't take {self.seconds:g} seconds: give a number above 0, e.g. 60")
        if self.trials is not None and self.trials < 1:
            raise ConfigError(f"a search of {self.trials} trials finds nothing: give at least 1, e.g. 40")


class Budget:
    """What is left of a search's bounds.

    Parameters
    ----------
    options : SearchOptions
    clock : callable
        Seconds.
    """

    def __init__(self, options: SearchOptions, clock: Callable[[], float] = time.monotonic) -> None:
        self.seconds = options.seconds
        self.clock = clock
        self._trials = options.trials
        self._started = clock()

    @property
    def bound(self) -> Literal["time", "trials"]:
        """What ends the search."""
        out_of_time = self.seconds is not None and (
            self._trials is None or self.spent() > REFINE * self.seconds
        )
        return "time" if out_of_time else "trials"

    def spent(self) -> float:
        """Seconds since the beginning."""
        return self.clock() - self._started

    def deadline(self, part: float = 1.0) -> float:
        """When a part of the time is over, by the clock."""
        return math.inf if self.seconds is None else self._started + part * self.seconds

    def left(self, part: float = 1.0) -> float:
        """Seconds until a part of the time is over."""
        return self.deadline(part) - self.clock()

    def trials(self, part: float, tried: int) -> int:
        """Settings left to try in a part of their number."""
        return 10**6 if self._trials is None else max(0, math.ceil(part * self._trials) - tried)
