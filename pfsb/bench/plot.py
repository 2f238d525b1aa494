"""Line charts as SVG, written without a library, so that a benchmark needs nothing else installed."""

from __future__ import annotations

import math
from collections.abc import Sequence
from html import escape
from typing import Final

from attrs import evolve, field, frozen

WIDTH: Final = 640
HEIGHT: Final = 340
_LEFT, _RIGHT, _TOP, _BOTTOM = 70, 170, 34, 52
_COLOURS: Final = ("#1f5fa8", "#c8501e", "#2e8b57", "#8a4fa3", "#b8860b", "#555555", "#d1477a", "#00868b")


@frozen
class Series:
    """One line of a chart, through some points. `dashed` is for figures that were not measured here, but published."""

    name: str
    points: Sequence[tuple[float, float]]
    dashed: bool = False
    colour: int | None = None
    """Index in the list of colours; None: the first series of a chart has colour 0, the next colour 1, and so on."""


@frozen
class Chart:
    """One pair of axes with its series."""

    title: str
    x_name: str
    y_name: str
    series: Sequence[Series] = field(factory=tuple)
    log_x: bool = False
    log_y: bool = False


def svg(charts: Sequence[Chart], columns: int = 2) -> str:
    """One SVG document with all charts, `columns` of them side by side."""
    rows = math.ceil(len(charts) / columns)
    wide = min(columns, len(charts)) * WIDTH
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{wide}" height="{rows * HEIGHT}" '
        f'viewBox="0 0 {wide} {rows * HEIGHT}" font-family="sans-serif" font-size="11">',
        f'<rect width="{wide}" height="{rows * HEIGHT}" fill="white"/>',
    ]
    for at, chart in enumerate(charts):
        parts.append(f'<g transform="translate({at % columns * WIDTH} {at // columns * HEIGHT})">')
        parts += _draw(chart)
        parts.append("</g>")
    return "\n".join([*parts, "</svg>", ""])


@frozen
class Axis:
    """Maps values to pixels: `low` to the pixel `start`, `high` to `end`, which may be less. There is a tick at both
    ends."""

    low: float
    high: float
    start: float
    end: float
    log: bool

    @classmethod
    def around(cls, values: Sequence[float], start: float, end: float, log: bool) -> Axis:
        """An axis that shows all values, and 0 unless it is logarithmic."""
        shown = [value for value in values if value > 0] if log else [0.0, *values]
        low, high = min(shown, default=1.0), max(shown, default=10.0)
        if log:
            low, high = 10 ** math.floor(math.log10(low)), 10 ** math.ceil(math.log10(high))
        high = high if high > low else low * 10 or 1.0
        return cls(low, high if log else _round_up(high), start, end, log)

    def at(self, value: float) -> float:
        """The pixel at which a value is shown."""
        share = (self._scaled(value) - self._scaled(self.low)) / (self._scaled(self.high) - self._scaled(self.low))
        return self.start + share * (self.end - self.start)

    def ticks(self) -> list[float]:
        """The values that stand at the axis: powers of ten on a logarithmic axis, else about five round values."""
        if self.log:
            exponents = range(round(math.log10(self.low)), round(math.log10(self.high)) + 1)
            return [float(10**exponent) for exponent in exponents]
        step = _step(self.high)
        return [step * number for number in range(round(self.high / step) + 1)]

    def _scaled(self, value: float) -> float:
        return math.log10(max(value, self.low)) if self.log else value


def _step(high: float) -> float:
    """The distance between two ticks on an axis from 0 to `high`: a round number, about a fifth of `high`."""
    rough = high / 5
    magnitude = math.pow(10, math.floor(math.log10(rough)))
    return next(magnitude * factor for factor in (1, 2, 5, 10) if magnitude * factor >= rough)


def _round_up(high: float) -> float:
    step = _step(high)
    return step * math.ceil(high / step)


def _draw(chart: Chart) -> list[str]:
    chart = evolve(chart, series=[_drawable(series, chart) for series in chart.series])
    points = [point for series in chart.series for point in series.points]
    x_axis = Axis.around([x for x, _ in points], _LEFT, WIDTH - _RIGHT, chart.log_x)
    y_axis = Axis.around([y for _, y in points], HEIGHT - _BOTTOM, _TOP, chart.log_y)
    return [*_frame(chart, x_axis, y_axis), *_lines(chart, x_axis, y_axis)]


def _drawable(series: Series, chart: Chart) -> Series:
    """The series without the points that a logarithmic axis cannot show, because a coordinate is not above 0."""
    kept = [(x, y) for x, y in series.points if (x > 0 or not chart.log_x) and (y > 0 or not chart.log_y)]
    return evolve(series, points=kept)


def _frame(chart: Chart, x_axis: Axis, y_axis: Axis) -> list[str]:
    middle = (_LEFT + WIDTH - _RIGHT) / 2
    drawn = [_text(middle, 18, chart.title, "middle", bold=True), _text(middle, HEIGHT - 8, chart.x_name, "middle")]
    turned = f'transform="rotate(-90 14 {HEIGHT / 2})"'
    drawn.append(_text(14, HEIGHT / 2, chart.y_name, "middle", turned))
    for value in x_axis.ticks():
        x = x_axis.at(value)
        drawn.append(_rule(x, _TOP, x, HEIGHT - _BOTTOM))
        drawn.append(_text(x, HEIGHT - _BOTTOM + 16, _number(value), "middle"))
    for value in y_axis.ticks():
        y = y_axis.at(value)
        drawn.append(_rule(_LEFT, y, WIDTH - _RIGHT, y))
        drawn.append(_text(_LEFT - 6, y + 4, _number(value), "end"))
    return drawn


def _lines(chart: Chart, x_axis: Axis, y_axis: Axis) -> list[str]:
    drawn = []
    for at, series in enumerate(chart.series):
        colour = _COLOURS[(at if series.colour is None else series.colour) % len(_COLOURS)]
        dash = ' stroke-dasharray="5 4"' if series.dashed else ""
        places = [(x_axis.at(x), y_axis.at(y)) for x, y in sorted(series.points)]
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in places)
        drawn.append(f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="1.6"{dash}/>')
        fill = "white" if series.dashed else colour
        drawn += [f'<circle cx="{x:.1f}" cy="{y:.1f}" r="2.6" fill="{fill}" stroke="{colour}"/>' for x, y in places]
        if series.name:
            x, y = WIDTH - _RIGHT + 12, _TOP + 8 + 15 * at
            drawn.append(f'<path d="M{x} {y - 4}h22" stroke="{colour}" stroke-width="1.6"{dash}/>')
            drawn.append(_text(x + 27, y, series.name))
    return drawn


def _rule(x1: float, y1: float, x2: float, y2: float) -> str:
    return f'<path d="M{x1:.1f} {y1:.1f}L{x2:.1f} {y2:.1f}" stroke="#dddddd"/>'


def _text(x: float, y: float, text: str, anchor: str = "start", more: str = "", *, bold: bool = False) -> str:
    weight = ' font-weight="bold"' if bold else ""
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}"{weight} {more}>{escape(text)}</text>'


def _number(value: float) -> str:
    if value >= 1_000_000:
        return f"{value / 1_000_000:g}M"
    return f"{value / 1000:g}k" if value >= 1000 else f"{value:g}"
