"""What every benchmark shares: options, interleaved rounds, a table and JSON.

A benchmark reads like this::

    def main(argv: Sequence[str] | None = None) -> int:
        options = option_parser("engine", __doc__).parse_args(argv)
        report = Report("engine")
        measured = interleave({"loop": time_loop, "ours": time_ours}, rounds=3 if options.quick else 7)
        loop = report.add("256 rows, loop", "time a call", measured["loop"], "ms")
        report.add("256 rows, ours", "time a call", measured["ours"], "ms", against=loop, times_faster=True)
        report.finish(options.json)
        return 0
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import TypeVar

from benchmarks.machine import describe_machine

T = TypeVar("T")


def option_parser(name: str, description: str | None) -> argparse.ArgumentParser:
    """The options that every benchmark has, `--quick` and `--json FILE`; add your own."""
    parser = argparse.ArgumentParser(
        prog=f"python -m benchmarks.{name}",
        description=description,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--quick", action="store_true", help="fewer and shorter rounds: rough figures")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the results to FILE as well")
    return parser


def interleave(cases: Mapping[str, Callable[[], T]], rounds: int) -> dict[str, list[T]]:
    """Measure every case once a round, so that a slow spell of the machine hits all of them.

    Each round starts with another case, so that none always follows the same neighbour. What a case
    has to warm up, it warms up before it measures.

    Returns
    -------
    dict
        For every case what it returned, round by round.
    """
    names = list(cases)
    measured: dict[str, list[T]] = {name: [] for name in names}
    for round_ in range(rounds):
        start = round_ % len(names)
        for name in names[start:] + names[:start]:
            measured[name].append(cases[name]())
    return measured


@dataclass(frozen=True, slots=True)
class Result:
    """One figure.

    Attributes
    ----------
    case : str
        What was measured, e.g. ``"30-64-64-2, 1 row, dropserve"``.
    measure, unit : str
        Which property of it and its unit, e.g. ``"requests a second"``, ``"1/s"``.
    rounds : tuple of float
        The value in every round.
    reference : str or None
        The case that `ratio` compares with.
    ratio : float or None
        Median over the rounds of value / reference, or of reference / value for `times_faster`.
    """

    case: str
    measure: str
    unit: str
    rounds: tuple[float, ...]
    reference: str | None = None
    ratio: float | None = None

    @property
    def value(self) -> float:
        """The median of the rounds."""
        return median(self.rounds)

    @property
    def spread(self) -> float:
        """Half the range of the rounds, as a part of their median."""
        return (max(self.rounds) - min(self.rounds)) / 2 / abs(self.value) if self.value else 0.0

    def as_json(self) -> dict[str, object]:
        """This result as design.md section 9 writes it; `spread` comes on top."""
        return {
            "case": self.case,
            "measure": self.measure,
            "value": self.value,
            "unit": self.unit,
            "reference": self.reference,
            "ratio": self.ratio,
            "spread": self.spread,
        }


class Report:
    """The results of one benchmark, in the order in which they are to be read."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.results: list[Result] = []

    def add(
        self,
        case: str,
        measure: str,
        rounds: Sequence[float],
        unit: str,
        *,
        against: Result | None = None,
        times_faster: bool = False,
    ) -> Result:
        """Add a figure measured in `rounds`.

        `against` is the result to compare it with, measured in the same interleaved rounds: the ratio
        is taken round by round. With `times_faster` the ratio is reference / value, as one reads
        durations; otherwise value / reference.
        """
        ratio = None
        if against is not None:
            pairs = zip(rounds, against.rounds, strict=True)
            ratio = median(theirs / ours if times_faster else ours / theirs for ours, theirs in pairs)
        result = Result(case, measure, unit, tuple(rounds), against.case if against else None, ratio)
        self.results.append(result)
        return result

    def table(self) -> str:
        """The results as text, one line each."""
        header = ("case", "measure", "value", "unit", "spread", "ratio", "against")
        lines = [header] + [
            (
                result.case,
                result.measure,
                f"{result.value:,.4g}" if abs(result.value) < 10_000 else f"{result.value:,.0f}",
                result.unit,
                f"±{result.spread:.0%}",
                "" if result.ratio is None else f"{result.ratio:.3g}",
                result.reference or "",
            )
            for result in self.results
        ]
        widths = [max(len(line[column]) for line in lines) for column in range(len(header))]
        numbers = {2, 4, 5}
        return "\n".join(
            "  ".join(
                cell.rjust(width) if column in numbers else cell.ljust(width)
                for column, (cell, width) in enumerate(zip(line, widths, strict=True))
            ).rstrip()
            for line in lines
        )

    def finish(self, json_file: Path | None = None) -> None:
        """Print the table and the machine; write them to `json_file` where one is given."""
        machine = describe_machine()
        gpu = f", {machine['gpu']}" if machine["gpu"] else ""
        print(self.table())
        print(f"\n{machine['cores']} cores of {machine['processor']}, {machine['memory_gib']} GiB{gpu}")
        print("Median of the rounds; spread is half their range; ratios are taken round by round.")
        if json_file is not None:
            results = [result.as_json() for result in self.results]
            json_file.write_text(json.dumps({"machine": machine, "results": results}, indent=2) + "\n")
