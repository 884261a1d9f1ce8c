"""Counts of one version of a model, beside those of its family: most families don't tell versions apart."""

from __future__ import annotations

from prometheus_client import Counter, Histogram


class CounterTally:
    """Counts on behalf of a counter that has its labels.

    Attributes
    ----------
    value : int
        The count.
    """

    __slots__ = ("_child", "value")

    def __init__(self, child: Counter) -> None:
        self._child = child
        self.value = 0

    def inc(self, amount: int = 1) -> None:
        """Add to the count."""
        self.value += amount
        self._child.inc(amount)


class HistogramTally:
    """Observes on behalf of a histogram that has its labels.

    Attributes
    ----------
    count : int
        How many values were observed.
    sum : float
        What they add up to.
    """

    __slots__ = ("_child", "count", "sum")

    def __init__(self, child: Histogram) -> None:
        self._child = child
        self.count = 0
        self.sum = 0.0

    def observe(self, value: float) -> None:
        """Count a value."""
        self.count += 1
        self.sum += value
        self._child.observe(value)
