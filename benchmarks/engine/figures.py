"""What was measured, as the figures of the report."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from statistics import median

from benchmarks.engine.accuracy import Accuracy
from benchmarks.engine.gpu import OnGpu, multiplications
from benchmarks.engine.memory import Taken
from benchmarks.engine.speed import (
    INDEPENDENT,
    LOOP,
    POINT,
    PRODUCT,
    PRODUCT_SIZE,
    REPEATED,
    multiplications_left,
    ours,
)
from benchmarks.networks import Network
from benchmarks.report import Report, Result

Times = Mapping[str, Sequence[float]]
"""Seconds a call of every case of `speed`, round by round."""


def add_accuracy(report: Report, network: Network, passes: int, found: Accuracy) -> None:
    """How far independent passes are off, and how few of ours are off no further."""
    independent = f"{network.name}: {passes} independent passes"
    default = f"{network.name}: dropserve"
    for moment, error, needed in (
        ("mean", found.mean_error, found.mean_passes),
        ("standard deviation", found.std_error, found.std_passes),
    ):
        report.add(independent, f"error of the {moment}", error, "std")
        report.add(default, f"passes to that error of the {moment}", needed, "passes")


def add_speed(
    report: Report, network: Network, rows: int, passes: int, times: Times, where: str = ""
) -> None:
    """What a call takes, ours against every other; `where` is put before the case."""
    add = _Timed(report, network, rows, times, where)
    loop = add(LOOP)
    repeated = add(REPEATED, against=loop) if REPEATED in times else None
    add(POINT, against=loop)
    for case in (INDEPENDENT, ours(passes)):
        add(case, against=loop)
        if repeated is not None:
            add(case, against=repeated)


def add_gpu(report: Report, network: Network, rows: int, passes: int, found: OnGpu) -> None:
    """What a call takes on a GPU, which part of a matrix product's speed that is, and parity with the CPU."""
    add_speed(report, network, rows, passes, found.times, "GPU, ")
    add = _Timed(report, network, rows, found.times, "GPU, ")
    report.add(add.name(PRODUCT), "GEMM peak", [2e-9 * found.peak], "GFLOP/s")
    everything = multiplications(network, rows, passes)
    share = [100 * everything / time / found.peak for time in found.times[INDEPENDENT]]
    report.add(add.name(INDEPENDENT), "all multiplications, of the GEMM peak", share, "%")
    difference = f"difference from the CPU, same seed, on {found.device}"
    report.add(add.name(ours(passes)), difference, [found.difference], "")


def add_cost_of_accuracy(
    report: Report, network: Network, rows: int, passes: int, found: Accuracy, times: Times
) -> None:
    """What the accuracy of independent passes takes, against the loop and in deterministic calls."""
    add = _Timed(report, network, rows, times)
    loop = Result(add.name(LOOP), "time a call", "ms", tuple(1000 * time for time in times[LOOP]))
    for moment, needed in (("mean", found.mean_passes), ("standard deviation", found.std_passes)):
        case = ours(passes_for(needed))
        add(case, f"time to the {moment} of {passes} independent passes", against=loop)
        calls = [time / point for time, point in zip(times[case], times[POINT], strict=True)]
        report.add(add.name(case), f"cost of that {moment}", calls, f"{POINT} calls")


def add_share_of_peak(
    report: Report, network: Network, rows: int, passes: int, times: Times, peak: float
) -> None:
    """Which part of the matrix product's speed is reached on what thinning leaves.

    `peak`: multiplications a second of the fastest matrix product.
    """
    left = multiplications_left(network, rows, passes)
    share = [100 * left / time / peak for time in times[INDEPENDENT]]
    name = _Timed(report, network, rows, times).name(INDEPENDENT)
    report.add(name, "multiplications left by thinning, of the GEMM peak", share, "%")


def add_peak(report: Report, times: Iterable[Times]) -> float:
    """The speed of the fastest matrix product of the run, in multiplications a second."""
    peak = PRODUCT_SIZE**3 / min(min(measured[PRODUCT]) for measured in times)
    report.add(f"torch.mm, {PRODUCT_SIZE} square, the best of all", "GEMM peak", [2e-9 * peak], "GFLOP/s")
    return peak


def add_memory(report: Report, network: Network, rows: int, passes: int, limit: int, taken: Taken) -> None:
    """What a large request takes beside its input and answer, against the limit set."""
    case = f"{network.name}, {rows:,} rows, {passes} passes"
    input_alone = 4 * rows * passes * network.sizes[0]
    report.add(f"{case}: {REPEATED}, computed", "its input alone", [input_alone / 2**20], "MiB")
    setting = report.add(f"{case}: the setting", "memory", [limit / 2**20], "MiB")
    report.add(f"{case}: dropserve", "memory", [taken.bytes / 2**20], "MiB", against=setting)
    report.add(f"{case}: dropserve", "time a call", [taken.seconds], "s")


def passes_for(needed: Sequence[int]) -> int:
    """The passes to measure with, given what every round found."""
    return int(median(needed))


class _Timed:
    """Adds the times of one network and number of rows."""

    def __init__(self, report: Report, network: Network, rows: int, times: Times, where: str = "") -> None:
        self._report = report
        self._prefix = f"{where}{network.name}, {rows} {'row' if rows == 1 else 'rows'}"
        self._times = times

    def name(self, case: str) -> str:
        return f"{self._prefix}: {case}"

    def __call__(self, case: str, measure: str = "time a call", against: Result | None = None) -> Result:
        milliseconds = [1000 * time for time in self._times[case]]
        return self._report.add(
            self.name(case), measure, milliseconds, "ms", against=against, times_faster=against is not None
        )
