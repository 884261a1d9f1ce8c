"""When those who are refused are to come back."""

from __future__ import annotations

from random import uniform

LONGEST = 8
"""Nobody is sent away for longer than so many times the longest wait in the queue: they may not come back."""


class Returns:
    """Has those who are refused come back one after the other, as fast as they can be answered.

    Told all the same, they would come back all at the same time, and most of them be refused once more: many
    who wait would then keep a server as busy with refusals as many who do not. Where they are more than can
    be answered within the longest time, or others take turns and never come back, each is sent away for a
    random part of it, at least half: so there is always room for some.

    Parameters
    ----------
    longest : float
        Nobody is sent away for more seconds than these, or than the queue in front of them takes.
    """

    __slots__ = ("_longest", "_taken")

    def __init__(self, longest: float) -> None:
        self._longest = longest
        self._taken = float("-inf")  # until then, those who were told have the server to themselves

    def after(self, wait: float, seconds: float, now: float) -> float:
        """How many seconds from `now` one is to come back.

        Parameters
        ----------
        wait : float
            How long the queue in front of it takes.
        seconds : float
            What it will take itself: the next comes so much later.
        """
        latest = max(wait, self._longest)
        after = max(wait, self._taken - now)
        self._taken = now + min(after + seconds, latest)
        if after + seconds > latest and after > latest / 2:
            return uniform(max(wait, latest / 2), latest)
        return after
