"""What all pictures share."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, MaxNLocator
from numpy.typing import NDArray

from dropserve_models.evaluation.metrics.gaussian import Doubles
from dropserve_models.evaluation.page.drawing import COLOURS, DASHES
from dropserve_models.evaluation.text import SUBJECTS, shown


class Picture(NamedTuple):
    """A picture with its title and the caption that says how to read it."""

    title: str
    svg: str
    caption: str


def draw_bars(axes: Axes, values: Doubles, edges: Doubles, colour: str, label: str) -> None:
    """A histogram as shares of the values; what is beyond the edges is in the first and last bar."""
    if not len(values):
        return
    counts, _ = np.histogram(np.clip(values, edges[0], edges[-1]), edges)
    axes.stairs(counts / len(values), edges, color=colour, fill=True, alpha=0.28)
    axes.stairs(counts / len(values), edges, color=colour, linewidth=1.5, label=label)


def limits(arrays: list[Doubles]) -> tuple[float, float]:
    """From 0, or the least value where that is far from 0, to the 99th percentile of the widest."""
    values = [array for array in arrays if len(array)]
    low = min(float(array.min()) for array in values)
    high = max(float(np.quantile(array, 0.99)) for array in values)
    low = 0.0 if low < 0.4 * high else low
    return low, high if high > low else low + (abs(low) or 1.0) * 0.1


def in_percent(axes: Axes, axis: str = "y") -> None:
    """Label an axis of shares, at round places."""
    chosen = axes.yaxis if axis == "y" else axes.xaxis
    chosen.set_major_locator(MaxNLocator(6, steps=[1, 2, 5, 10]))
    chosen.set_major_formatter(FuncFormatter(lambda share, _: f"{100.0 * share:g} %"))


def some_rows(rows: int, most: int) -> NDArray[np.intp]:
    """Places of at most so many rows, chosen by chance, in order."""
    if rows <= most:
        return np.arange(rows)
    return np.sort(np.random.default_rng(0).choice(rows, most, replace=False))


def told(subject: str, drawn: int, rows: int) -> str:
    """Whose rows are drawn, and how many, for a caption."""
    which = f"{drawn} of {rows} rows, by chance" if drawn < rows else "every row"
    return f"{SUBJECTS[subject]}, {which}."


def main_subject(subjects: Iterable[str]) -> str:
    """Whose answers a picture of one subject shows."""
    return "monte_carlo" if "monte_carlo" in subjects else "deterministic"


def draw_line(axes: Axes, subject: str, x: Doubles, y: Doubles, **style: Any) -> None:
    """A subject's line, in its colour and dashes."""
    axes.plot(
        x, y, **{"color": COLOURS[subject], "linestyle": DASHES[subject], "label": SUBJECTS[subject]} | style
    )


def shortened(text: str) -> str:
    """A name that fits beside an axis."""
    text = shown(text)
    return text if len(text) <= 40 else text[:39] + "…"
