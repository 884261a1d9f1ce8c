"""What computing takes, learnt while it is done: how long a batch will take, how much fits into a time."""

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

    __slots__ = ("_recent_seconds", "_recent_work", "_units")

    def __init__(self) -> None:
        self._units = [0.0] * _SIZES  # seconds a unit of work, by the logarithm of the work; 0: not known
        self._recent_seconds = self._recent_work = 0.0

    def record(self, work: int, seconds: float) -> None:
        """Learn that so much work, computed at once, took so long."""
        self._recent_seconds = _MEMORY * self._recent_seconds + seconds
        self._recent_work = _MEMORY * self._recent_work + work
        self.record_whole(work, seconds)

    def record_whole(self, work: int, seconds: float) -> None:
        """Learn what so much work took, whose parts, computed one after the other, are known already."""
        size, unit = work.bit_length(), seconds / work
        known = self._units[size]
        if known:
            unit = known + (_FASTER if unit < known else _SLOWER) * (unit - known)
        self._units[size] = unit

    @property
    def unit(self) -> float:
        """Seconds a unit of work, in the batches as they were lately; 0 while nothing is known."""
        return self._recent_seconds / self._recent_work if self._recent_work else 0.0

    def share(self, work: int) -> float:
        """What so much work adds to a queue, in batches as they were lately; estimated rather too short."""
        return min(self.at_least(work), self.unit * work)

    def seconds(self, work: int) -> float:
        """How long so much work takes at once, estimated rather too long; infinity while nothing is known."""
        size = work.bit_length()
        if unit := self._units[size]:
            return unit * work
        for smaller in range(size - 1, 0, -1):
            if unit := self._units[smaller]:
                return unit * work
        for larger in range(size + 1, _SIZES):
            if unit := self._units[larger]:
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
        """How much work, computed at once, takes about so long; 0 while nothing is known."""
        fitting = 0
        for size in range(_SIZES - 1, 0, -1):
            if unit := self._units[size]:
                fitting = max(1, int(seconds / unit))
                if fitting >= 1 << (size - 1):
                    break
        return fitting


class ModelCosts:
    """The costs of one version of one model."""

    __slots__ = ("adaptive", "deterministic", "monte_carlo")

    def __init__(self) -> None:
        self.deterministic = Costs()
        self.monte_carlo = Costs()
        self.adaptive = Costs()  # Monte Carlo requests that may stop before all their passes
