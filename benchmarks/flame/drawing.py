"""Draws a flame graph as SVG: the width of a frame is its share of the samples, and its callees stand below it."""

from __future__ import annotations

from collections.abc import Iterator
from html import escape
from typing import Final

from benchmarks.flame.stacks import OTHER, PARTS, Frame

WIDTH: Final = 1200
ROW: Final = 17
_TOP: Final = 52
_SHARE_MIN: Final = 0.004
"""Minimum share of the samples for a frame to be drawn: narrower frames could not be seen or pointed at."""
_CHARACTER: Final = 5.7
"""Approximate width of a character in pixels."""
_DEPTH_MAX: Final = 40
_COLOURS: Final = dict(
    zip(
        [*(part for part, _ in PARTS), OTHER],
        ("#f2a65a", "#e4c05c", "#b5d16c", "#7ec8a3", "#7fb7e0", "#c39bd3", "#f0c8a0", "#c8ccd4", "#e6e6e6"),
        strict=True,
    )
)

Place = tuple[Frame, int, float, float]
"""The place of a frame in the drawing: (frame, row, left edge, width), the last two as shares of the whole width."""


def svg(root: Frame, title: str) -> str:
    """The flame graph as an SVG document. Hovering over a frame shows the frame's name and share."""
    places = list(_places(root, 0, 0.0, root.samples))
    height = _TOP + ROW * (1 + max((row for _, row, _, _ in places), default=0)) + 8
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{height}" viewBox="0 0 {WIDTH} {height}" '
        'font-family="sans-serif" font-size="10">',
        f'<rect width="{WIDTH}" height="{height}" fill="white"/>',
        f'<text x="8" y="18" font-size="13" font-weight="bold">{escape(title)}</text>',
        *_legend(),
    ]
    for frame, row, left, width in places:
        parts += _drawn(frame, row, left * WIDTH, width * WIDTH, frame.samples / root.samples)
    return "\n".join([*parts, "</svg>", ""])


def _places(frame: Frame, row: int, left: float, total: int) -> Iterator[Place]:
    """The places of a frame's callees, the largest first, side by side from the left edge of their caller."""
    for callee in sorted(frame.callees.values(), key=lambda callee: -callee.samples):
        width = callee.samples / total
        if width >= _SHARE_MIN and row < _DEPTH_MAX:
            yield callee, row, left, width
            yield from _places(callee, row + 1, left, total)
        left += width


def _drawn(frame: Frame, row: int, x: float, width: float, share: float) -> list[str]:
    y = _TOP + ROW * row
    letters = int((width - 6) / _CHARACTER)
    function = frame.name.partition(" (")[0]
    shown = function if len(function) <= letters else f"{function[: letters - 1]}\N{HORIZONTAL ELLIPSIS}"
    label = f'<text x="{x + 3:.1f}" y="{y + 12}">{escape(shown)}</text>' if letters >= 4 else ""
    size = f'width="{max(width - 0.6, 0.4):.1f}" height="{ROW - 1}"'
    rect = f'<rect x="{x:.1f}" y="{y}" {size} fill="{_COLOURS[frame.part]}"/>'
    return [f"<g><title>{escape(frame.name)}: {100 * share:.1f} %</title>{rect}{label}</g>"]


def _legend() -> Iterator[str]:
    x = 8.0
    for part, colour in _COLOURS.items():
        yield f'<rect x="{x:.1f}" y="28" width="11" height="11" fill="{colour}"/>'
        yield f'<text x="{x + 15:.1f}" y="37">{escape(part)}</text>'
        x += 30 + _CHARACTER * len(part)
