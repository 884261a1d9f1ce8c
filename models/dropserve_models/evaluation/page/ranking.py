"""Pictures of what uncertainty tells: errors, and rows out of distribution."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from dropserve_models.evaluation.measures import LARGEST_ERRORS
from dropserve_models.evaluation.page.drawing import FAINT, FIRST, SECOND, THIRD, drawing
from dropserve_models.evaluation.page.picture import (
    Picture,
    draw_bars,
    draw_line,
    in_percent,
    limits,
    main_subject,
)
from dropserve_models.evaluation.report import Curves
from dropserve_models.evaluation.text import SUBJECTS, shown

_PLACES = 400


def rejection(curves: Mapping[str, Curves], salt: str, *, classifier: bool) -> Picture:
    """Mean error of the rows left when the most uncertain are rejected."""
    with drawing(f"{salt}-rejection") as made:
        for name, curve in curves.items():
            found = curve.rejection
            if found is None:
                continue
            rows = len(found.kept)
            places = np.unique(np.linspace(0, rows - 1, _PLACES).astype(np.int64))
            rejected = 1.0 - found.kept[places]
            draw_line(made.axes, name, rejected, found.error[places])
            if name == main_subject(curves):
                made.axes.plot(
                    rejected, found.best[places], color=FAINT, linewidth=1.1, label="best possible"
                )
                made.axes.axhline(found.overall, color=FAINT, linewidth=1.1, linestyle=":", label="by chance")
        made.axes.set_xlabel("rows rejected, the most uncertain first")
        made.axes.set_ylabel("wrong among those left" if classifier else "mean absolute error of those left")
        in_percent(made.axes, "x")
        if classifier:
            in_percent(made.axes)
        made.axes.set_xlim(0, 1)
        made.axes.set_ylim(bottom=0)
    return Picture(
        "Rejection curve",
        made.svg,
        "What answering only the surest rows buys. The faster a line falls, the better uncertainty knows "
        "where the errors are; along the dotted line it knows nothing. Near 100 % few rows are left, and "
        "lines shake.",
    )


def histogram(curves: Mapping[str, Curves], salt: str, *, classifier: bool) -> Picture | None:
    """Uncertainty of right and wrong rows, or of small and large errors."""
    name = main_subject(curves)
    error, total = curves[name].error, curves[name].total
    if total is None:
        return None
    bad = error > (0.0 if classifier else np.quantile(error, 1.0 - LARGEST_ERRORS))
    names = ("right", "wrong") if classifier else ("other errors", "largest tenth of the errors")
    edges = np.linspace(*limits([total]), 31)
    with drawing(f"{salt}-histogram") as made:
        for label, values, colour in zip(names, (total[~bad], total[bad]), (FIRST, SECOND), strict=True):
            draw_bars(made.axes, values, edges, colour, f"{label}: {len(values)} rows")
        made.axes.set_xlabel("predictive entropy, nats" if classifier else "predicted standard deviation")
        made.axes.set_ylabel("share of these rows")
        in_percent(made.axes)
    return Picture(
        "Uncertainty and errors",
        made.svg,
        f"{SUBJECTS[name]}. Two heaps that stand apart mean that uncertainty gives errors away; two on top "
        "of each other, that it doesn't. The last bar holds what is beyond.",
    )


def distribution(curves: Mapping[str, Curves], salt: str, what: str, *, classifier: bool) -> Picture | None:
    """Uncertainty in and out of distribution: the passes' part, where there is one."""
    name = main_subject(curves)
    curve = curves[name]
    inside, outside = curve.epistemic, curve.out_epistemic
    label = "what the passes disagree about: " + (
        "mutual information, nats" if classifier else "standard deviation"
    )
    if inside is None or outside is None:
        inside, outside = curve.total, curve.out_total
        label = "predictive entropy, nats" if classifier else "predicted standard deviation"
    if inside is None or outside is None:
        return None
    edges = np.linspace(*limits([inside, outside]), 41)
    with drawing(f"{salt}-distribution") as made:
        draw_bars(made.axes, inside, edges, FIRST, f"in distribution: {len(inside)} rows")
        draw_bars(made.axes, outside, edges, THIRD, f"out of distribution: {len(outside)} rows")
        made.axes.set_xlabel(label)
        made.axes.set_ylabel("share of these rows")
        in_percent(made.axes)
    return Picture(
        "In and out of distribution",
        made.svg,
        f"{SUBJECTS[name]}. Out of distribution: {shown(what)}. A model that knows what it doesn't know is "
        "less sure of those rows: their heap stands to the right. The last bar holds what is beyond.",
    )
