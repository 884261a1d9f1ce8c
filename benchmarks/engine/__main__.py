"""Error bars by Monte Carlo dropout: what they cost, and how good they are, beside what is written by hand.

Networks are trained for a moment on made-up tasks. The torch module and the artifact that are compared hold
the same weights, and take turns in one process.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import torch

from benchmarks.engine import accuracy, figures, gpu, memory, speed
from benchmarks.engine.accuracy import Accuracy
from benchmarks.engine.subjects import Subject, prepare
from benchmarks.networks import LARGE, REGRESSION, SMALL, Network
from benchmarks.report import Report, option_parser
from dropserve_models.inference.deterministic import available_cores

PASSES = 100
ROWS = {LARGE: (1, 32, 256), SMALL: (1, 256), REGRESSION: (1, 256)}
MANY_ROWS = 256
"""Where the cost of an accuracy and the share of the peak are taken."""
MEMORY_BYTES = 128 * 2**20
GPU_ROWS = (4096, 65_536)


@dataclass(frozen=True, slots=True)
class Effort:
    """How long to measure.

    Attributes
    ----------
    rounds, seconds : int, float
        Of the times: rounds, and how long each case takes in one.
    repetitions : tuple of int
        Of the errors: rounds, and repetitions in each.
    reference : int
        Passes that stand for infinitely many.
    large : tuple of (Network, int, int)
        The requests whose memory is measured: rows and passes.
    """

    rounds: int
    seconds: float
    repetitions: tuple[int, int]
    reference: int
    large: tuple[tuple[Network, int, int], ...]


QUICK = Effort(3, 0.1, (3, 16), 100_000, ((SMALL, 100_000, 100),))
FULL = Effort(7, 0.4, (5, 80), 400_000, ((SMALL, 100_000, 1000), (LARGE, 100_000, 1000)))


def main(argv: Sequence[str] | None = None) -> int:
    """Measure and report."""
    parser = option_parser("engine", __doc__)
    parser.add_argument(
        "--threads", type=int, default=available_cores(), help="of torch and ONNX Runtime; default: the cores"
    )
    options = parser.parse_args(argv)
    effort = QUICK if options.quick else FULL
    report = Report("engine")
    with TemporaryDirectory() as temporary:
        # One thread for what is not timed: these products are too small to gain by more.
        torch.set_num_threads(1)
        subjects = [prepare(network, Path(temporary)) for network in ROWS]
        for subject in subjects:
            print(f"{subject.network.name}: {subject.score}", flush=True)
        found = {
            subject.network: accuracy.measure(subject, PASSES, *effort.repetitions, effort.reference)
            for subject in subjects
        }
        torch.set_num_threads(options.threads)
        times = {
            (subject.network, rows): _times(subject, rows, found[subject.network], effort, options.threads)
            for subject in subjects
            for rows in ROWS[subject.network]
        }
        on_gpu = {
            (subject.network, rows): gpu.measure(subject, rows, PASSES, effort.rounds, effort.seconds)
            for subject in subjects
            for rows in GPU_ROWS
            if gpu.available()
        }
        folders = {subject.network: subject.folder for subject in subjects}
        taken = {
            (network, rows, passes): memory.measure(
                folders[network], rows, passes, MEMORY_BYTES, options.threads
            )
            for network, rows, passes in effort.large
        }
    peak = figures.add_peak(report, times.values())
    for (network, rows), measured in times.items():
        figures.add_speed(report, network, rows, PASSES, measured)
        if rows == MANY_ROWS:
            figures.add_share_of_peak(report, network, rows, PASSES, measured, peak)
            figures.add_cost_of_accuracy(report, network, rows, PASSES, found[network], measured)
    for network, accurate in found.items():
        figures.add_accuracy(report, network, PASSES, accurate)
    for (network, rows, passes), request in taken.items():
        figures.add_memory(report, network, rows, passes, MEMORY_BYTES, request)
    for (network, rows), seen in on_gpu.items():
        figures.add_gpu(report, network, rows, PASSES, seen)
    print(f"{options.threads} threads. {'Cases on a GPU, too.' if on_gpu else 'No cases on a GPU.'}\n")
    report.finish(options.json)
    return 0


def _times(
    subject: Subject, rows: int, found: Accuracy, effort: Effort, threads: int
) -> dict[str, list[float]]:
    needed = (found.mean_passes, found.std_passes) if rows == MANY_ROWS else ()
    others = [figures.passes_for(passes) for passes in needed]
    return speed.measure(subject, rows, PASSES, others, threads, effort.rounds, effort.seconds)


if __name__ == "__main__":
    sys.exit(main())
