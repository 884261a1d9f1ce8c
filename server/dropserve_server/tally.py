"""Counts kept in plain numbers or arrays, and handed to prometheus_client many at a time.

An observation by prometheus_client takes a lock or more and some microseconds, and a request makes many.
One thread counts in a tally, and only adds; any thread may flush, one at a time.
"""

from __future__ import annotations

from bisect import bisect_left

import numpy as np
from numpy.typing import NDArray
from prometheus_client import Counter, Gauge, Histogram


class CounterTally:
    """Counts on behalf of a counter or gauge that has its labels.

    Parameters
    ----------
    child : Counter or Gauge
    """

    __slots__ = ("_child", "_flushed", "_value")

    def __init__(self, child: Counter | Gauge) -> None:
        self._child = child
        self._value = self._flushed = 0

    @property
    def value(self) -> int:
        """The count."""
        return self._value

    def inc(self, amount: int = 1) -> None:
        """Add to the count."""
        self._value += amount

    def flush(self) -> None:
        """Hand on what came since the last time."""
        value = self._value
        if value != self._flushed:
            self._child.inc(value - self._flushed)
            self._flushed = value


class HistogramTally:
    """Observes on behalf of a histogram that has its labels.

    Parameters
    ----------
    child : Histogram
    """

    __slots__ = ("_bounds", "_child", "_counts", "_flushed", "_flushed_sum", "_sum")

    def __init__(self, child: Histogram) -> None:
        self._child = child
        self._bounds: list[float] = child._upper_bounds
        self._counts = [0] * len(self._bounds)
        self._flushed = [0] * len(self._bounds)
        self._sum = self._flushed_sum = 0.0

    @property
    def count(self) -> int:
        """How many values were observed."""
        return sum(self._counts)

    @property
    def sum(self) -> float:
        """What they add up to."""
        return self._sum

    def observe(self, value: float) -> None:
        """Count a value."""
        self._counts[bisect_left(self._bounds, value)] += 1
        self._sum += value

    def flush(self) -> None:
        """Hand on what came since the last time."""
        for bucket, count in enumerate(self._counts):
            if count != self._flushed[bucket]:
                self._child._buckets[bucket].inc(count - self._flushed[bucket])
                self._flushed[bucket] = count
        total = self._sum
        if total != self._flushed_sum:
            self._child._sum.inc(total - self._flushed_sum)
            self._flushed_sum = total


class BulkHistogram(Histogram):
    """A histogram that takes many observations at once."""

    def observe_many(self, values: NDArray[np.float32]) -> None:
        """Observe the finite ones of `values` [observations]; costs a call a bucket, not one a value."""
        values = values[np.isfinite(values)]  # one infinity would spoil the sum for good
        bounds = self._upper_bounds
        counts = np.bincount(np.searchsorted(bounds, values), minlength=len(bounds))
        for index in np.flatnonzero(counts):
            self._buckets[index].inc(int(counts[index]))
        self._sum.inc(float(values.sum(dtype=np.float64)))
