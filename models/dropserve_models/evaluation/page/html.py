"""The page: figures, pictures and what they mean. Everything that data chose is escaped."""

from __future__ import annotations

import html
from collections.abc import Iterable, Iterator, Mapping
from typing import TypeAlias

from dropserve_models.evaluation.figure import Figure
from dropserve_models.evaluation.learning import LearningCurve
from dropserve_models.evaluation.measures import measure_of
from dropserve_models.evaluation.page import calibration, ranking, training
from dropserve_models.evaluation.page.picture import Picture
from dropserve_models.evaluation.page.style import STYLE
from dropserve_models.evaluation.report import OutputReport, Report
from dropserve_models.evaluation.text import SUBJECTS, cells, comparison, in_order, shown

DRAWN = 12
"""Targets whose pictures are drawn, at most."""

Columns: TypeAlias = Mapping[str, Mapping[str, Figure]]
"""Figures by the heading of their column, and by name."""

_ARROWS = {"higher": "↑", "lower": "↓", "nominal": "="}


def as_html(report: Report, learning: LearningCurve | None = None) -> bytes:
    """One page, UTF-8, that loads nothing from elsewhere; legible in light and dark.

    Parameters
    ----------
    report : Report
    learning : LearningCurve, optional
        Of the model's training.
    """
    title = f"{report.model.name}/{report.model.version}"
    body = [
        f"<header><p class=kind>dropserve evaluation</p><h1>{_safe(title)}</h1>{_facts(report)}</header>",
        *_notes(report.notes),
        *(_section(report, output, number) for number, output in enumerate(report.outputs)),
    ]
    if learning is not None:
        drawn = _figure(training.learning(learning))
        body.append(f"<section><h2>Training</h2><div class=pictures>{drawn}</div></section>")
    body.append(_glossary(report))
    page = (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<meta name="color-scheme" content="light dark">\n'
        f"<title>{_safe(title)}: evaluation</title>\n<style>{STYLE}</style>\n</head>\n<body>\n<main>\n"
        + "\n".join(body)
        + "\n</main>\n</body>\n</html>\n"
    )
    return page.encode(errors="replace")


def _safe(text: str) -> str:
    return html.escape(shown(text))


def _facts(report: Report) -> str:
    info = report.model
    facts = [
        ("task", info.task),
        ("answers", _listed(info.output_names)),
        ("features", str(len(info.feature_names))),
        ("drop rates", ", ".join(f"{rate:g}" for rate in info.drop_rates) or "none"),
        ("rows", f"{report.rows}, from {report.source}" if report.source else str(report.rows)),
    ]
    if report.majority is not None:
        label, share = report.majority
        facts.append(("most frequent class", f"{_short(label)}, {100 * share:.1f} %"))
    if report.passes is not None:
        facts.append(("Monte Carlo", f"{report.passes} passes, seed {report.seed}"))
    if report.baseline is not None:
        facts.append(("baseline", f"{report.baseline.name}/{report.baseline.version}"))
    if report.out_of_distribution is not None:
        facts.append(("out of distribution", report.out_of_distribution))
    return (
        "<dl class=facts>"
        + "".join(f"<div><dt>{name}</dt><dd>{_safe(fact)}</dd></div>" for name, fact in facts)
        + "</dl>"
    )


def _notes(notes: Iterable[str]) -> Iterator[str]:
    for note in notes:
        yield f'<p class=note role="note">{_safe(note)}</p>'


def _section(report: Report, output: OutputReport, number: int) -> str:
    heading = "Figures" if len(report.outputs) == 1 else _safe(output.name)
    drawn = list(_pictures(report, output, f"output-{number}")) if number < DRAWN else []
    gap = "" if drawn else f"<p>Pictures are drawn of the first {DRAWN} targets.</p>"
    return (
        f"<section><h2>{heading}</h2>{_tables(output)}{gap}"
        f"<div class=pictures>{''.join(map(_figure, drawn))}</div></section>"
    )


def _pictures(report: Report, output: OutputReport, salt: str) -> Iterator[Picture]:
    curves = output.curves
    classifier = report.model.task != "regression"
    unsure = any(curve.total is not None for curve in curves.values())
    calibrated = report.model.calibrated
    if classifier:
        yield calibration.reliability(curves, salt)
        if calibrated:
            yield calibration.sets(curves, salt)
    else:
        yield calibration.predictions(output.truth, curves, salt, output.name)
        if unsure or calibrated:
            yield calibration.coverage(curves, salt)
        if unsure:
            yield calibration.errors(curves, salt)
    if unsure:
        yield ranking.rejection(curves, salt, classifier=classifier)
    heaps = [ranking.histogram(curves, salt, classifier=classifier)]
    if report.out_of_distribution is not None:
        heaps.append(ranking.distribution(curves, salt, report.out_of_distribution, classifier=classifier))
    yield from (picture for picture in heaps if picture is not None)


def _tables(output: OutputReport) -> str:
    """Figures and comparisons beside each other, or with a baseline one below the other."""
    figures = {SUBJECTS[subject]: found for subject, found in output.figures.items()}
    differences = {comparison(pair): found for pair, found in output.differences.items()}
    if len(figures) <= 2:
        tables = [_table(figures, differences)]
    else:
        tables = [_table(figures, {}), _table({}, differences)]
    key = (
        "± is the standard error over the rows; differences are of the same rows. ↑ higher is better, "
        "↓ lower is better, = the nearer to what was asked for."
    )
    return "".join(tables) + f"<p class=key>{key}</p>"


def _table(figures: Columns, differences: Columns) -> str:
    rows = []
    told: set[str] = set()
    for name in in_order(name for found in (*figures.values(), *differences.values()) for name in found):
        measure = measure_of(name)
        values = [cells(found.get(name)) for found in figures.values()]
        values += [cells(found.get(name), signed=True) for found in differences.values()]
        reasons = {found[name].note or "" for found in figures.values() if name in found} - {""}
        child = measure.title.startswith(" ")
        reasons, told = reasons - (told if child else set()), reasons
        title = f'<abbr title="{_safe(measure.meaning)}">{_safe(measure.title.strip())}</abbr>'
        title += f"<span class=arrow>{_ARROWS[measure.better]}</span>"
        title += "".join(f"<small>{_safe(reason)}</small>" for reason in sorted(reasons))
        row = f'<th scope="row">{title}</th>' + "".join(f"<td>{_value(value)}</td>" for value in values)
        rows.append(f"<tr{' class=child' if child else ''}>{row}</tr>")
    head = "".join(f'<th scope="col">{_safe(name)}</th>' for name in (*figures, *differences))
    return (
        f"<div class=scroll><table><thead><tr><th></th>{head}</tr></thead>"
        f"<tbody>{''.join(rows)}</tbody></table></div>"
    )


def _value(text: str) -> str:
    value, sign, error = text.replace("-", "−").partition(" ± ")
    return f"{value}<span class=error> {sign.strip()} {error}</span>" if sign else value


def _figure(picture: Picture) -> str:
    caption = f"<figcaption>{_safe(picture.caption)}</figcaption>"
    return f"<figure><h3>{_safe(picture.title)}</h3>{picture.svg}{caption}</figure>"


def _glossary(report: Report) -> str:
    names = in_order(
        name for output in report.outputs for figures in output.figures.values() for name in figures
    )
    meanings = {}
    for name in names:
        measure = measure_of(name)
        if not measure.title.startswith(" "):
            meanings[measure.title] = measure.meaning
    items = "".join(
        f"<div><dt>{_safe(title)}</dt><dd>{_safe(meaning)}</dd></div>" for title, meaning in meanings.items()
    )
    return f"<section><h2>What the figures mean</h2><dl class=glossary>{items}</dl></section>"


def _listed(names: tuple[str, ...]) -> str:
    listed = ", ".join(_short(name) for name in names[:12])
    return f"{listed}, … ({len(names)} in all)" if len(names) > 12 else listed


def _short(text: str) -> str:
    return text if len(text) <= 60 else text[:59] + "…"
