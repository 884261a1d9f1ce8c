"""The metrics of every worker, dead ones included, as one process would show them."""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from pathlib import Path

from prometheus_client import ProcessCollector
from prometheus_client.metrics_core import Metric
from prometheus_client.multiprocess import MultiProcessCollector, mark_process_dead
from prometheus_client.registry import Collector

_ATTEMPTS = 5


class WorkersCollector(Collector):
    """Sums what the workers have written to `folder`, and shows their processes one by one.

    A worker writes to files with its number in the name, and the one that takes its place goes on in them:
    counters never go backwards, and the folder does not grow with every restart.

    Parameters
    ----------
    folder : Path
        ``PROMETHEUS_MULTIPROC_DIR`` of the workers.
    pids : callable
        The processes that are running, by the value of the label ``worker``.
    """

    def __init__(self, folder: Path, pids: Callable[[], Mapping[str, int]]) -> None:
        self._folder = folder
        self._pids = pids

    def collect(self) -> Iterable[Metric]:
        """Every family."""
        yield from self._written()
        yield from self._processes()

    @staticmethod
    def forget(folder: Path, number: int) -> None:
        """Remove the gauges of a worker that has died; its counters stay."""
        mark_process_dead(number, str(folder))  # type: ignore[no-untyped-call]

    def _written(self) -> Iterable[Metric]:
        collector = MultiProcessCollector(None, str(self._folder))  # type: ignore[no-untyped-call]
        for attempt in range(1, _ATTEMPTS + 1):
            try:
                families: Iterable[Metric] = collector.collect()  # type: ignore[no-untyped-call]
                return families
            except struct.error:  # a worker has just made a file, and not yet given it its size
                if attempt == _ATTEMPTS:
                    raise
        raise AssertionError

    def _processes(self) -> Iterable[Metric]:
        families: dict[str, Metric] = {}
        for worker, pid in self._pids().items():
            for one in ProcessCollector(pid=partial(int, pid), registry=None).collect():
                every = families.setdefault(one.name, Metric(one.name, one.documentation, one.type))
                for sample in one.samples:
                    every.add_sample(sample.name, {"worker": worker}, sample.value)
        return families.values()
