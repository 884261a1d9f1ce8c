"""What an SVG of the page shows, read back from its coordinates by the labels of its axes."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from xml.etree import ElementTree

import numpy as np
from numpy.typing import NDArray

Points = NDArray[np.float64]
Ticks = list[tuple[float, float]]

_SVG = "{http://www.w3.org/2000/svg}"
_HREF = "{http://www.w3.org/1999/xlink}href"
_COLOUR = re.compile(r"stroke: var\(--(\w+)\)")
_TICKS = {"L 0 3.5": 0, "L -3.5 0": 1}
"""The ends of the marks on the two axes."""


@dataclass
class Panel:
    """One pair of axes.

    Attributes
    ----------
    box : (left, top, right, bottom)
    ticks : of x and of y, (place, value) each
    paths : (colour, points in the picture's coordinates, whether it is a line)
    """

    box: tuple[float, float, float, float]
    ticks: tuple[Ticks, Ticks] = field(default_factory=lambda: ([], []))
    paths: list[tuple[str, Points, bool]] = field(default_factory=list)


class Picture:
    """A picture, read.

    Attributes
    ----------
    panels : list of Panel
        From the top down.
    legend : dict of str to str
        The colour of each label.
    """

    def __init__(self, svg: str) -> None:
        root = ElementTree.fromstring(svg)
        shapes = {shape.get("id"): shape for shape in root.iter() if shape.get("id")}
        boxes = {f"url(#{clip.get('id')})": _box(next(iter(clip))) for clip in root.iter(f"{_SVG}clipPath")}
        found = {clip: Panel(box) for clip, box in boxes.items()}
        self.panels = sorted(found.values(), key=lambda panel: panel.box[1])
        self.legend: dict[str, str] = {}
        mark: tuple[int, float, float] | None = None
        handle = ""
        for element in root.iter():
            clip = element.get("clip-path", "")
            colour = _COLOUR.search(element.get("style", ""))
            if element.tag == f"{_SVG}use":
                shape = shapes[element.get(_HREF, "")[1:]].get("d", "")
                axis = next((axis for end, axis in _TICKS.items() if end in shape), None)
                if axis is not None:
                    mark = axis, float(element.get("x", "")), float(element.get("y", ""))
            elif element.tag == f"{_SVG}text":
                if mark is not None:
                    self._tick(*mark, element.text or "")
                elif handle:
                    self.legend[element.text or ""] = handle
                mark, handle = None, ""
            elif element.tag == f"{_SVG}path" and colour is not None:
                if clip:
                    line = "fill: none" in element.get("style", "")
                    found[clip].paths.append((colour[1], _points(element.get("d", "")), line))
                elif not colour[1].startswith(("ink", "faint", "grid")):
                    handle = colour[1]

    def _tick(self, axis: int, x: float, y: float, label: str) -> None:
        value = float(label.removesuffix(" %").replace("\N{MINUS SIGN}", "-"))
        value = value / 100.0 if label.endswith(" %") else value
        for panel in self.panels:
            left, top, right, bottom = panel.box
            below = abs(y - bottom) < 1.0 and left - 1.0 < x < right + 1.0
            beside = abs(x - left) < 1.0 and top - 1.0 < y < bottom + 1.0
            if beside if axis else below:
                panel.ticks[axis].append((y if axis else x, value))

    def lines(self, colour: str, panel: int = 0) -> list[Points]:
        """Lines of that colour, [points, 2] in the axes' own units."""
        scales = self.panels[-1].ticks[0], self.panels[panel].ticks[1]
        return [
            np.stack([_value(points[:, axis], scales[axis]) for axis in (0, 1)], axis=1)
            for own, points, line in self.panels[panel].paths
            if own == colour and line
        ]


def _box(rectangle: ElementTree.Element) -> tuple[float, float, float, float]:
    x, y, width, height = (float(rectangle.get(name, "")) for name in ("x", "y", "width", "height"))
    return x, y, x + width, y + height


def _points(path: str) -> Points:
    return np.array([[float(x), float(y)] for x, y in re.findall(r"[ML] (\S+) (\S+)", path)])


def _value(places: Points, ticks: Ticks) -> Points:
    (low, first), (high, last) = min(ticks), max(ticks)
    found: Points = first + (places - low) / (high - low) * (last - first)
    return found


def bars(outline: Points) -> tuple[Points, Points]:
    """Edges and heights of a histogram that is drawn as an outline, from the axis up and back to it."""
    return outline[::2, 0], outline[1:-1:2, 1]
