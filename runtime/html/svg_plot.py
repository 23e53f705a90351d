"""Line and dot plots as numbers for inline SVG: paths, ticks and names, drawn by page.html.jinja.

Takes series of (x, y). Returns a `Plot` in SVG units. Leaves out: colours and text styles (the page's).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

WIDTH, HEIGHT = 460, 240  # of the plotting area, in SVG units
TICKS = 5  # about as many on each axis
STEPS = (1, 2, 2.5, 5, 10)  # a tick's distance is one of these times a power of ten
MARGIN = 0.04  # of the axis, left free beyond the data
SHADES = 6  # colours that the page has


@dataclass(frozen=True)
class Series:
    """A named line, or dots where `line` is False."""

    name: str
    points: Sequence[tuple[float, float]]
    line: bool = True


@dataclass(frozen=True)
class Tick:
    at: float
    text: str


@dataclass(frozen=True)
class Mark:
    """One series, drawn."""

    name: str
    path: str
    dots: Sequence[tuple[float, float]]
    shade: int


@dataclass(frozen=True)
class Plot:
    title: str
    x_name: str
    y_name: str
    marks: Sequence[Mark]
    x_ticks: Sequence[Tick]
    y_ticks: Sequence[Tick]
    width: int = WIDTH
    height: int = HEIGHT


@dataclass(frozen=True)
class Axis:
    """A range of values on a length."""

    low: float
    high: float
    length: float

    def place(self, value: float) -> float:
        return (value - self.low) / (self.high - self.low) * self.length

    def ticks(self, percent: bool) -> list[Tick]:
        raw = (self.high - self.low) / TICKS
        power = 10.0 ** math.floor(math.log10(raw))
        step = next(step * power for step in STEPS if step * power >= raw * (1 - 1e-9))
        first = math.ceil(self.low / step - 1e-9)
        values = [i * step for i in range(first, math.floor(self.high / step + 1e-9) + 1)]
        return [
            Tick(self.place(value), f"{value:.4g}" if not percent else f"{value:.4%}".rstrip("0%").rstrip(".") + " %")
            for value in values
        ]


def draw_plot(
    title: str, x_name: str, y_name: str, series: Sequence[Series], percent: bool = False, zero: bool = False
) -> Plot:
    """Plots the series on axes that fit them; `percent` is the unit of y, `zero` starts both axes at 0."""
    shown = [one for one in series if one.points]
    x, y = (
        _axis([point[i] for one in shown for point in one.points], length, zero)
        for i, length in enumerate((WIDTH, HEIGHT))
    )
    marks = []
    for index, one in enumerate(shown):
        dots = [(round(x.place(a), 1), round(HEIGHT - y.place(b), 1)) for a, b in one.points]
        path = "M" + "L".join(f"{a} {b}" for a, b in dots) if one.line and len(dots) > 1 else ""
        marks.append(Mark(one.name, path, () if len(dots) > TICKS * SHADES else dots, index % SHADES + 1))
    flipped = [Tick(HEIGHT - tick.at, tick.text) for tick in y.ticks(percent)]
    return Plot(title, x_name, y_name, marks, x.ticks(False), flipped)


def _axis(values: Sequence[float], length: float, zero: bool) -> Axis:
    low, high = (min(values), max(values)) if values else (0.0, 1.0)
    low = min(0.0, low) if zero else low
    spread = (high - low) or abs(high) or 1.0
    return Axis(low if zero and low == 0 else low - MARGIN * spread, high + MARGIN * spread, length)
