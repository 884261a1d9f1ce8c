"""Pictures of predictions, and of whether they keep what they promise."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from matplotlib.ticker import PercentFormatter

from dropserve_models.evaluation.metrics.gaussian import Doubles
from dropserve_models.evaluation.page.drawing import COLOURS, DASHES, FAINT, drawing
from dropserve_models.evaluation.page.picture import (
    Picture,
    draw_line,
    in_percent,
    limits,
    main_subject,
    shortened,
    some_rows,
    told,
)
from dropserve_models.evaluation.report import Curves
from dropserve_models.evaluation.text import SUBJECTS

POINTS = 1500
"""Rows drawn as points, at most; chosen by chance."""
BARS = 300
"""Rows drawn with error bars, at most."""

_BINS = 10
_MARKED = {"marker": "o", "markersize": 3.6, "markevery": 4, "linewidth": 1.0}


def reliability(curves: Mapping[str, Curves], salt: str) -> Picture:
    """Accuracy by confidence, over the histogram of confidence."""
    lowest = 1.0
    with drawing(f"{salt}-reliability", heights=(3.0, 1.0), size=(5.6, 4.4)) as made:
        made.axes.plot([0, 1], [0, 1], color=FAINT, linewidth=1.0, label="perfect")
        assert made.below is not None
        for name, curve in curves.items():
            found = curve.reliability
            assert found is not None
            held = found.counts > 0
            lowest = min(lowest, float(found.edges[:-1][held].min()))
            share = found.counts / found.counts.sum()
            draw_line(made.axes, name, found.confidence[held], found.accuracy[held], linewidth=1.2)
            made.axes.scatter(
                found.confidence[held], found.accuracy[held], s=8 + 160 * share[held], color=COLOURS[name]
            )
            made.below.stairs(share, found.edges, color=COLOURS[name], linestyle=DASHES[name], linewidth=1.5)
        made.axes.set_ylabel("accuracy")
        made.axes.set_ylim(-0.04, 1.06)
        made.below.set_xlim(lowest, 1.005)
        made.below.set_xlabel("confidence: probability of the most probable class")
        made.below.set_ylabel("rows")
        made.below.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0, symbol=" %"))
        made.below.set_ylim(bottom=0.0)
    return Picture(
        "Reliability diagram",
        made.svg,
        "Rows in bins by their confidence. On the line, of rows predicted with 80 % confidence 80 % are "
        "right; below it the model is overconfident, above it too modest. Large dots stand for many rows; "
        "small ones mean little.",
    )


def coverage(curves: Mapping[str, Curves], salt: str) -> Picture:
    """Observed by nominal coverage: of Gaussian intervals, and of calibrated ones."""
    held = _calibrated(curves)
    with drawing(f"{salt}-coverage", columns=3) as made:
        made.axes.plot([0, 1], [0, 1], color=FAINT, linewidth=1.0, label="perfect")
        for name, curve in curves.items():
            if curve.coverage is not None:
                draw_line(made.axes, name, curve.coverage[:, 0], curve.coverage[:, 1])
        for name, found in held.items():
            draw_line(
                made.axes, name, found[:, 0], found[:, 1], label=f"{SUBJECTS[name]}, calibrated", **_MARKED
            )
        made.axes.set_xlabel("coverage asked for")
        made.axes.set_ylabel("truths within the intervals")
        in_percent(made.axes, "x")
        in_percent(made.axes)
        made.axes.set_xlim(0, 1)
        made.axes.set_ylim(0, 1.01)
    marked = " With dots: the calibrated intervals." if held else ""
    return Picture(
        "Coverage",
        made.svg,
        f"Central intervals of the Gaussian with the predicted mean and whole variance.{marked} On the line, "
        "intervals that should hold 90 % of the truths do; below it they are too narrow, above it too wide.",
    )


def sets(curves: Mapping[str, Curves], salt: str) -> Picture:
    """Observed by nominal coverage of prediction sets, over their mean size."""
    with drawing(f"{salt}-sets", heights=(2.0, 1.0), size=(5.6, 4.4)) as made:
        made.axes.plot([0, 1], [0, 1], color=FAINT, linewidth=1.0, label="perfect")
        assert made.below is not None
        for name, found in _calibrated(curves).items():
            draw_line(made.axes, name, found[:, 0], found[:, 1])
            draw_line(made.below, name, found[:, 0], found[:, 2])
        made.axes.set_ylabel("true classes in their sets")
        in_percent(made.axes)
        made.axes.set_ylim(0, 1.02)
        made.below.set_xlim(0, 1)
        made.below.set_xlabel("coverage asked for")
        made.below.set_ylabel("classes in a set")
        made.below.set_ylim(bottom=0.0)
        in_percent(made.below, "x")
    return Picture(
        "Prediction sets",
        made.svg,
        "Calibrated sets of classes. On the line, sets that should hold 90 % of the true classes do. A set "
        "has at least one class, so an accurate model covers more than a low coverage asks for. The smaller "
        "the sets, the more they say.",
    )


def _calibrated(curves: Mapping[str, Curves]) -> dict[str, Doubles]:
    """The model's own calibrated curves; those of a baseline would be too many lines."""
    return {
        name: curve.calibrated
        for name, curve in curves.items()
        if curve.calibrated is not None and not name.startswith("baseline")
    }


def predictions(truth: Doubles, curves: Mapping[str, Curves], salt: str, unit: str) -> Picture:
    """Prediction against truth, with error bars."""
    name = main_subject(curves)
    rows = some_rows(len(truth), BARS)
    x, y = truth[rows], curves[name].mean[rows]
    spread = curves[name].total
    with drawing(f"{salt}-predictions") as made:
        ends = [min(x.min(), y.min()), max(x.max(), y.max())]
        made.axes.plot(ends, ends, color=FAINT, linewidth=1.0, label="perfect")
        colour = COLOURS[name]
        made.axes.plot(x, y, "o", color=colour, markersize=3.4, markeredgewidth=0, label="prediction")
        if spread is not None:
            made.axes.errorbar(
                x, y, spread[rows], fmt="none", ecolor=colour, elinewidth=0.8, alpha=0.4,
                label="± 1 standard deviation",
            )  # fmt: skip
        made.axes.set_xlabel(f"truth: {shortened(unit)}")
        made.axes.set_ylabel("prediction")
    bars = "About two of three error bars should reach it. " if spread is not None else ""
    return Picture(
        "Prediction against truth",
        made.svg,
        f"{told(name, len(rows), len(truth))} Points on the line are exact. {bars}Where points leave it on "
        "one side, the model is biased there.",
    )


def errors(curves: Mapping[str, Curves], salt: str) -> Picture:
    """Errors against predicted standard deviation, and their root mean square in bins."""
    drawn = {
        name: (curve.error, curve.total)
        for name, curve in curves.items()
        if curve.total is not None and not name.startswith("baseline")
    }
    with drawing(f"{salt}-errors") as made:
        for name, (error, total) in drawn.items():
            rows = some_rows(len(error), POINTS)
            made.axes.plot(
                total[rows],
                error[rows],
                "o",
                color=COLOURS[name],
                markersize=2.6,
                alpha=0.3,
                markeredgewidth=0,
            )
            bins = min(_BINS, max(1, len(error) // 5))
            parts = np.array_split(np.argsort(total, kind="stable"), bins)
            spread = np.array([total[part].mean() for part in parts])
            found = np.array([np.sqrt(np.square(error[part]).mean()) for part in parts])
            draw_line(made.axes, name, spread, found, marker="o", markersize=4.5)
        low, high = limits([total for _, total in drawn.values()])
        made.axes.plot([0, high], [0, high], color=FAINT, linewidth=1.0, label="perfect")
        made.axes.set_xlim(low, high)
        made.axes.set_ylim(0, limits([error for error, _ in drawn.values()])[1])
        made.axes.set_xlabel("predicted standard deviation")
        made.axes.set_ylabel("absolute error")
    return Picture(
        "Error against uncertainty",
        made.svg,
        "A point for every row; the lines are the root mean square of the errors in bins of equally many "
        "rows. On the diagonal, rows err as much as the model says; a flat line means that it can't tell "
        "sure rows from unsure ones.",
    )
