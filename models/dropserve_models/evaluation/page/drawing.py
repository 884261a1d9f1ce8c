"""Axes drawn by matplotlib as SVG for a page: text stays text, colours are the page's, light or dark."""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure

# Stand-ins: colours that matplotlib writes, and that the page's stylesheet replaces by those of its theme.
INK, FAINT, GRID = "#010101", "#020202", "#030303"
FIRST, SECOND, THIRD, FOURTH = "#040404", "#050505", "#060606", "#070707"
_VARIABLES = {
    INK: "--ink",
    FAINT: "--faint",
    GRID: "--grid",
    FIRST: "--first",
    SECOND: "--second",
    THIRD: "--third",
    FOURTH: "--fourth",
}
COLOURS = {
    "deterministic": FIRST,
    "monte_carlo": SECOND,
    "baseline_deterministic": THIRD,
    "baseline_monte_carlo": FOURTH,
}
DASHES = {
    "deterministic": (0, (5, 2)),
    "monte_carlo": "solid",
    "baseline_deterministic": (0, (1, 1.5)),
    "baseline_monte_carlo": (0, (6, 2, 1, 2)),
}
"""Colour is never the only difference."""

_STYLE: Any = {
    "svg.fonttype": "none",
    "text.parse_math": False,  # labels come from data: a dollar is a dollar
    "font.family": "DejaVu Sans",
    "font.size": 9.5,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": FAINT,
    "axes.labelcolor": INK,
    "axes.titlecolor": INK,
    "text.color": INK,
    "xtick.color": FAINT,
    "ytick.color": FAINT,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "axes.grid": True,
    "grid.color": GRID,
    "grid.linewidth": 0.8,
    "axes.axisbelow": True,
    "lines.linewidth": 1.8,
    "lines.solid_capstyle": "round",
    "legend.frameon": False,
    "legend.fontsize": 9.0,
    "figure.facecolor": "none",
    "axes.facecolor": "none",
    "savefig.facecolor": "none",
    "figure.constrained_layout.use": True,
}

_FONT = re.compile(r"'DejaVu Sans'(?:, sans-serif)?")
_WIDTH = re.compile(r'(<svg[^>]*?) width="[^"]*"', re.DOTALL)
_HEIGHT = re.compile(r'(<svg[^>]*?) height="[^"]*"', re.DOTALL)


class Drawing:
    """A figure in the making: `axes`, and once the block is left, `svg`."""

    def __init__(self, heights: tuple[float, ...], size: tuple[float, float], columns: int) -> None:
        self._figure = Figure(figsize=size)
        FigureCanvasSVG(self._figure)
        panels, self._columns = len(heights), columns
        found = self._figure.subplots(panels, 1, sharex=True, squeeze=False, height_ratios=heights)[:, 0]
        self.axes: Axes = found[0]
        self.below: Axes | None = found[1] if panels > 1 else None
        self.svg = ""

    def legend(self) -> None:
        """The legend above the axes, where it can't cover data."""
        handles, labels = self.axes.get_legend_handles_labels()
        if handles:
            self._figure.legend(
                handles,
                labels,
                loc="outside upper left",
                ncols=self._columns,
                handlelength=2.2,
                columnspacing=1.4,
            )

    def finish(self, salt: str) -> None:
        """Render; `salt` keeps the picture's identifiers apart from those of others on the page."""
        with mpl.rc_context({"svg.hashsalt": salt}):
            buffer = io.StringIO()
            self._figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None})
        text = buffer.getvalue()
        self.svg = _in_the_page_s_colours(text[text.index("<svg") :], salt)


@contextmanager
def drawing(
    salt: str,
    size: tuple[float, float] = (5.6, 3.7),
    heights: tuple[float, ...] = (1.0,),
    columns: int = 4,
) -> Iterator[Drawing]:
    """Draw within the page's style.

    Parameters
    ----------
    salt : str
        Of this picture alone.
    size : tuple of float
        Width and height in inches; the page scales it.
    heights : tuple of float
        Of one panel, or of two that share their x axis.
    columns : int
        Of the legend.
    """
    with mpl.rc_context(_STYLE), warnings.catch_warnings():
        warnings.simplefilter(
            "ignore"
        )  # letters that the font used for the layout lacks: the browser's has them
        made = Drawing(heights, size, columns)
        yield made
        made.legend()
        made.finish(salt)


def _in_the_page_s_colours(svg: str, salt: str) -> str:
    for stand_in, variable in _VARIABLES.items():
        svg = svg.replace(stand_in, f"var({variable})")
    svg = _FONT.sub("inherit", svg)
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    svg = re.sub(
        r'id="((?:figure|axes|text|line2d|patch|xtick|ytick|matplotlib|PathCollection|legend)[^"]*)"', "", svg
    )
    return _HEIGHT.sub(r"\1", _WIDTH.sub(r"\1", svg, count=1), count=1)
