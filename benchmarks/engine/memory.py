"""How much memory a large request takes: `python -m benchmarks.engine.memory` asks once and prints it.

In a process of its own, since a process keeps what it has once been given.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from dataclasses import dataclass, fields
from pathlib import Path
from time import perf_counter

import numpy as np
import torch

from dropserve_models import Prediction, load


@dataclass(frozen=True, slots=True)
class Taken:
    """What a request took: bytes beyond its input and its answer, and seconds."""

    bytes: int
    seconds: float


def measure(folder: Path, rows: int, passes: int, memory_bytes: int, threads: int) -> Taken:
    """Ask the model in `folder` once, in a new process."""
    numbers = map(str, (rows, passes, memory_bytes, threads))
    command = [sys.executable, "-m", "benchmarks.engine.memory", str(folder), *numbers]
    answer = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, timeout=600).stdout
    return Taken(**json.loads(answer))


def main() -> None:
    """Load, warm up, ask, and print a `Taken`."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.engine.memory", description=__doc__)
    parser.add_argument("folder", type=Path)
    for name in ("rows", "passes", "memory_bytes", "threads"):
        parser.add_argument(name, type=int)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    model = load(options.folder, device="cpu", threads=options.threads, memory_bytes=options.memory_bytes)
    features = np.random.default_rng(0).standard_normal(
        (options.rows, len(model.info.feature_names)), np.float32
    )
    model.predict(features[:64], passes=options.passes)
    before = _resident()
    start = perf_counter()
    answer = model.predict(features, passes=options.passes)
    seconds = perf_counter() - start
    print(json.dumps({"bytes": _peak() - before - _answer_bytes(answer), "seconds": seconds}))


def _resident() -> int:
    """Bytes in memory now; forgets the peak so far."""
    Path("/proc/self/clear_refs").write_text("5")
    return _status("VmRSS")


def _peak() -> int:
    return _status("VmHWM")


def _status(name: str) -> int:
    """A line of Linux's account of this process, in bytes."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{name}:"))


def _answer_bytes(answer: Prediction) -> int:
    values = [getattr(answer, field.name) for field in fields(answer)]
    return sum(value.nbytes for value in values if isinstance(value, np.ndarray))


if __name__ == "__main__":
    main()
