"""What computing takes, learnt while it is done: how long a batch will take, how much fits into a time.

Two times are kept. Those who come later wait for as long as it takes; how work is cut, and put together, goes
by the part of it in which it had a processor. A server that has too much else to do takes longer for
everything, and would cut what it took whole before: many requests that take turns are all of them late.
"""

from __future__ import annotations

_FASTER, _SLOWER = 0.5, 0.1
"""How far an estimate follows a faster, and a slower, measurement. What slows one down is mostly other
threads and processes, so that the fast ones are the truer."""
_MEMORY = 0.95  # of the recent average, a batch
_SIZES = 64


class Costs:
    """The costs of one version of one model in one mode. For one writing thread and any number of readers.

    Work is counted in rows, in Monte Carlo mode in rows times passes. A unit costs the less the more are
    computed at once, so that estimates are kept for every size of work, a power of two.
    """

    __slots__ = ("_busy_units", "_recent_seconds", "_recent_work", "_units")

    def __init__(self) -> None:
        self._units = [0.0] * _SIZES  # seconds a unit of work, by the logarithm of the work; 0: not known
        self._busy_units = [0.0] * _SIZES  # the same of a processor's
        self._recent_seconds = self._recent_work = 0.0

    def record(self, work: int, seconds: float, busy: float | None = None) -> None:
        """Learn that so much work, computed at once, took so long, and kept a processor `busy` (as long)."""
        self._recent_seconds = _MEMORY * self._recent_seconds + seconds
        self._recent_work = _MEMORY * self._recent_work + work
        self.record_whole(work, seconds, busy)

    def record_whole(self, work: int, seconds: float, busy: float | None = None) -> None:
        """Learn what so much work took, whose parts, computed one after the other, are known already."""
        _learn(self._units, work, seconds)
        _learn(self._busy_units, work, seconds if busy is None else busy)

    @property
    def unit(self) -> float:
        """Seconds a unit of work, in the batches as they were lately; 0 while nothing is known."""
        return self._recent_seconds / self._recent_work if self._recent_work else 0.0

    def share(self, work: int) -> float:
        """What so much work adds to a queue, in batches as they were lately; estimated rather too short."""
        return min(self.at_least(work), self.unit * work)

    def seconds(self, work: int) -> float:
        """How long so much work keeps a processor busy, rather too long; infinity while nothing is known."""
        size = work.bit_length()
        if unit := self._busy_units[size]:
            return unit * work
        for smaller in range(size - 1, 0, -1):
            if unit := self._busy_units[smaller]:
                return unit * work
        for larger in range(size + 1, _SIZES):
            if unit := self._busy_units[larger]:
                return unit * (1 << (larger - 1))
        return float("inf")

    def at_least(self, work: int) -> float:
        """How long so much work takes at once, estimated rather too short; 0 while nothing is known."""
        size = work.bit_length()
        for same_or_larger in range(size, _SIZES):
            if unit := self._units[same_or_larger]:
                return unit * work
        for smaller in range(size - 1, 0, -1):
            if unit := self._units[smaller]:
                return unit * (1 << smaller)
        return 0.0

    def within(self, seconds: float) -> int:
        """How much work, computed at once, keeps a processor busy for so long; 0 while nothing is known."""
        fitting = 0
        for size in range(_SIZES - 1, 0, -1):
            if unit := self._busy_units[size]:
                fitting = max(1, int(seconds / unit))
                if fitting >= 1 << (size - 1):
                    break
        return fitting


def _learn(units: list[float], work: int, seconds: float) -> None:
    size, unit = work.bit_length(), seconds / work
    known = units[size]
    if known:
        unit = known + (_FASTER if unit < known else _SLOWER) * (unit - known)
    units[size] = unit


class ModelCosts:
    """The costs of one version of one model."""

    __slots__ = ("adaptive", "deterministic", "monte_carlo")

    def __init__(self) -> None:
        self.deterministic = Costs()
        self.monte_carlo = Costs()
        self.adaptive = Costs()  # Monte Carlo requests that may stop before all their passes
