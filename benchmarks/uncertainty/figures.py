"""Means over splits, with their uncertainty, beside published figures."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from benchmarks.machine import describe_machine


@dataclass(frozen=True, slots=True)
class Figure:
    """A measure.

    Attributes
    ----------
    case, measure, unit : str
    values : tuple of float
        Of every split, fold or repeat.
    references : dict of str to float
        What was published, by whom or of what.
    standard_error : float or None
        Of the mean; None: from the spread of the values, taken as independent.
    """

    case: str
    measure: str
    unit: str
    values: tuple[float, ...]
    references: dict[str, float]
    standard_error: float | None = None

    @property
    def mean(self) -> float:
        """Over the values."""
        return float(np.mean(self.values))

    @property
    def error(self) -> float:
        """Standard error of the mean; NaN of a single value."""
        if self.standard_error is not None:
            return self.standard_error
        count = len(self.values)
        return float(np.std(self.values, ddof=1)) / math.sqrt(count) if count > 1 else math.nan

    def lines(self) -> list[dict[str, object]]:
        """As design.md section 9 writes results, one for each reference; the standard error comes on top."""
        references: list[tuple[str | None, float | None]] = [*self.references.items()] or [(None, None)]
        return [
            {
                "case": self.case,
                "measure": self.measure,
                "value": self.mean,
                "unit": self.unit,
                "reference": name,
                "ratio": None if value is None else self.mean / value,
                "standard_error": None if math.isnan(self.error) else self.error,
            }
            for name, value in references
        ]


class Figures:
    """All that was measured; said as it comes."""

    def __init__(self) -> None:
        self._figures: list[Figure] = []

    def say(self, text: str) -> None:
        """Print a line at once."""
        print(text, flush=True)

    def add(
        self,
        case: str,
        measure: str,
        values: Sequence[float],
        unit: str = "",
        references: dict[str, float] | None = None,
        standard_error: float | None = None,
    ) -> Figure:
        """Add a measure and print it."""
        figure = Figure(case, measure, unit, tuple(values), references or {}, standard_error)
        self._figures.append(figure)
        error = "" if math.isnan(figure.error) else f" ± {figure.error:.2g}"
        published = "; ".join(f"{name} {value:g}" for name, value in figure.references.items())
        self.say(
            f"{case:28}  {measure:22}  {figure.mean:9.4g}{error:10} {unit:6}"
            + (f"  ({published})" if published else "")
        )
        return figure

    def finish(self, json_file: Path | None) -> None:
        """Say how to read it; write it to `json_file` where one is given."""
        machine = describe_machine()
        self.say(f"\n{machine['cores']} cores of {machine['processor']}, {machine['memory_gib']} GiB")
        self.say("Means over the splits or folds, ± their standard errors; in brackets what was published.")
        if json_file is not None:
            results = [line for figure in self._figures for line in figure.lines()]
            json_file.write_text(json.dumps({"machine": machine, "results": results}, indent=2) + "\n")
