"""When a call must be over."""

from __future__ import annotations

import math
import time
from typing import Final

from dropserve_client.errors import DeadlineExceededError, InputError, ResourceExhaustedError

DEFAULT_TIMEOUT: Final = 30.0
"""Seconds."""

_LEAST_PAUSE: Final = 0.02  # a server that knows nothing yet of what calls take asks for none
_LONGEST_PAUSE: Final = 86_400.0  # a day: no queue takes so long, and clocks can't be set to any time


class Deadline:
    """When a whole dialogue must be over.

    Parameters
    ----------
    seconds : float
        From now on; math.inf for none.
    target : str
        Whom the dialogue is with, for the message.
    """

    __slots__ = ("_at", "_seconds", "_target")

    def __init__(self, seconds: float, target: str) -> None:
        self._seconds = checked_timeout(seconds)
        self._target = target
        self._at = time.monotonic() + self._seconds

    def remaining(self) -> float | None:
        """Seconds left, None for no deadline.

        Raises
        ------
        DeadlineExceededError
            Where none are left.
        """
        if self._at == math.inf:
            return None
        left = self._at - time.monotonic()
        if left <= 0:
            raise DeadlineExceededError(self.message())
        return left

    def at_most(self, seconds: float) -> float:
        """So many seconds, or those that are left where they are fewer.

        Raises
        ------
        DeadlineExceededError
            Where none are left.
        """
        left = self.remaining()
        return seconds if left is None else min(seconds, left)

    def pause(self, refusal: ResourceExhaustedError) -> float:
        """How long to wait before a call that was refused is made again.

        Raises
        ------
        ResourceExhaustedError
            The refusal, where the server names no time, or none before the deadline and within a day.
        """
        if refusal.retry_seconds is None:
            raise refusal
        pause = max(_LEAST_PAUSE, refusal.retry_seconds)
        if pause > _LONGEST_PAUSE or time.monotonic() + pause >= self._at:
            raise refusal
        return pause

    def message(self) -> str:
        """What to tell when it has passed."""
        return f"no answer from {self._target} within {self._seconds:g} s"


def checked_timeout(seconds: float) -> float:
    """A timeout in seconds, checked."""
    if isinstance(seconds, bool) or not isinstance(seconds, int | float) or not seconds > 0:
        raise InputError(f"timeout must be a positive number of seconds (math.inf for none), not {seconds!r}")
    return float(seconds)
