"""The report as a table for a terminal."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence

from dropserve_models.evaluation.figure import Figure
from dropserve_models.evaluation.measures import measure_of, place_of
from dropserve_models.evaluation.report import OutputReport, Report

_OUTPUTS_SHOWN = 20

SUBJECTS = {
    "deterministic": "deterministic",
    "monte_carlo": "Monte Carlo",
    "baseline_deterministic": "baseline, det.",
    "baseline_monte_carlo": "baseline, MC",
}


def as_text(report: Report) -> str:
    """Figures as ``value ± standard error``, a column for each subject and each comparison."""
    lines = [*headline(report), ""]
    for output in report.outputs[:_OUTPUTS_SHOWN]:
        if len(report.outputs) > 1:
            lines.append(shown(output.name))
        lines += [*_table(output), ""]
    if len(report.outputs) > _OUTPUTS_SHOWN:
        lines += [f"and {len(report.outputs) - _OUTPUTS_SHOWN} more targets: --json has them all", ""]
    lines.append("± is the standard error over the rows; differences are of the same rows.")
    return "\n".join([*lines, *map(shown, report.notes)])


def headline(report: Report) -> Iterator[str]:
    """What was evaluated on what."""
    info = report.model
    what = "of " + ", ".join(shown(name) for name in info.output_names[:10])
    more = ", ..." if len(info.output_names) > 10 else ""
    yield f"model     {info.name}/{info.version}: {info.task} {what}{more}"
    if report.baseline is not None:
        yield f"baseline  {report.baseline.name}/{report.baseline.version}"
    yield (
        f"data      {shown(report.source)}: {report.rows} rows"
        if report.source
        else f"data      {report.rows} rows"
    )
    if report.majority is not None:
        label, share = report.majority
        yield f"          most frequent class: {shown(label)}, {100 * share:.1f} %"
    if report.passes is not None:
        yield f"passes    {report.passes}, seed {report.seed}"
    if report.out_of_distribution is not None:
        yield f"strange   {shown(report.out_of_distribution)}"


def cells(figure: Figure | None, *, signed: bool = False) -> str:
    """``value ± standard error``, with as many digits as the latter deserves."""
    if figure is None or figure.value is None:
        return "-"
    sign = "+" if signed else ""
    error = figure.standard_error
    if error is None or not math.isfinite(error) or error == 0.0 or not math.isfinite(figure.value):
        return f"{figure.value:{sign}.4g}"
    # Two digits of the error, unless it is far below what four digits of the value show.
    digits = min(max(1 - math.floor(math.log10(error)), 0), max(3 - _magnitude(figure.value), 0) + 2)
    return f"{figure.value:{sign}.{digits}f} ± {error:.{digits}f}"


def shown(text: str) -> str:
    """Text that data chose, on one line and without control characters."""
    return "".join(letter if letter.isprintable() else "�" for letter in text)


def _magnitude(value: float) -> int:
    return math.floor(math.log10(abs(value))) if value else 0


def _table(output: OutputReport) -> list[str]:
    values = [["", *(SUBJECTS[subject] for subject in output.figures)]]
    differences = [["", *(comparison(pair) for pair in output.differences)]]
    for name in in_order(name for figures in output.figures.values() for name in figures):
        title = measure_of(name).title
        values.append([title, *(cells(figures.get(name)) for figures in output.figures.values())])
        differences.append(
            [title, *(cells(found.get(name), signed=True) for found in output.differences.values())]
        )
    if len(output.figures) <= 2:  # beside each other
        tables = [[one + other[1:] for one, other in zip(values, differences, strict=True)]]
    else:
        tables = [values, differences]
    lines = [line for table in tables for line in (*_aligned(table), "")][:-1]
    return [*lines, *(f"- {reason}" for reason in _reasons(output))]


def _reasons(output: OutputReport) -> list[str]:
    """Why figures have no value; of one that belongs to another only where the reason is not the same."""
    reasons: dict[str, None] = {}
    for figures in output.figures.values():
        told: set[str] = set()
        for name, figure in figures.items():
            title = measure_of(name).title
            if figure.note and not (title.startswith(" ") and figure.note in told):
                told.add(figure.note)
                reasons[f"{title.strip()}: {figure.note}"] = None
    return list(reasons)


def in_order(names: Iterable[str]) -> list[str]:
    """Names of figures, each once, in the order of the catalogue."""
    return sorted(set(names), key=place_of)


def comparison(pair: str) -> str:
    """The heading of a column of differences."""
    one, _, other = pair.partition(" - ")
    if one == "monte_carlo" and other == "deterministic":
        return "MC - det."
    return "det. - baseline" if one == "deterministic" else "MC - baseline"


def _aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = []
    for first, *rest in rows:
        line = first.ljust(widths[0]) + "".join(
            f"  {cell:>{width}}" for cell, width in zip(rest, widths[1:], strict=True)
        )
        lines.append(line.rstrip())
    return lines
