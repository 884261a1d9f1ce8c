"""From the start of the process until it says SERVING, of 10 models and no Monte Carlo request yet."""

from __future__ import annotations

import shutil
import time
from functools import partial
from pathlib import Path

from benchmarks.networks import SMALL, publish
from benchmarks.report import Report, interleave
from benchmarks.serving.processes import dropserve_server

MODELS = 10


def measure(report: Report, folder: Path, rounds: int) -> None:
    """Add the cases to the report."""
    version = publish(SMALL, folder / "one")
    for number in range(MODELS):
        shutil.copytree(version.parent, folder / "repository" / f"model-{number}")
    _seconds_to_serving(folder, 1)  # reads every file that the others will find in the system's cache
    named = {f"{MODELS} models, {n} worker{'s' * (n > 1)}": n for n in (1, 2)}
    cases = {name: partial(_seconds_to_serving, folder, workers) for name, workers in named.items()}
    for name, seconds in interleave(cases, rounds).items():
        report.add(name, "from start to SERVING", seconds, "s")


def _seconds_to_serving(folder: Path, workers: int) -> float:
    started = time.perf_counter()
    with dropserve_server(folder / "repository", folder / "log", "--workers", str(workers), warm_up=False):
        return time.perf_counter() - started
