"""A bar chart of ratios as SVG: how many times as fast as each peer, on a logarithmic axis, goals marked."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from math import floor, log10
from xml.sax.saxutils import escape

from paired import Row

_LINE, _HEADING, _LEFT, _PLOT, _RIGHT, _TOP = 20, 34, 330, 460, 110, 40
_INK, _FAINT, _BAR, _MISSED, _GOAL = "#1f2328", "#d0d7de", "#2f6f9f", "#b06a2c", "#1f2328"


def bar_chart(rows: Sequence[Row]) -> str:
    """Draw the rows that have a ratio to somebody else, grouped by case (what stands before `` : ``).

    Parameters
    ----------
    rows : sequence of Row

    Returns
    -------
    str
        An SVG document.
    """
    drawn = [row for row in rows if row.ratio is not None and " : ourselves" not in row.case]
    most = max((row.ratio or 1 for row in drawn), default=1.0)
    decades = max(1.0, log10(1.2 * most))
    parts, y = [], _TOP
    for heading, row in _grouped(drawn):
        if heading:
            y += _HEADING
            parts.append(_text(16, y - 10, heading, weight="600"))
        parts += _bar(row, y, decades)
        y += _LINE
    height, width = y + 30, _LEFT + _PLOT + _RIGHT
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}"'
            ' font-family="system-ui, sans-serif" font-size="13">',
            f'<rect width="{width}" height="{height}" fill="#ffffff"/>',
            *_axis(decades, y),
            *parts,
            _text(_LEFT, y + 20, "times as fast; the marks are the goals"),
            "</svg>\n",
        ]
    )


def _grouped(rows: Sequence[Row]) -> Iterator[tuple[str, Row]]:
    """Each row, and its case where that is another one than before."""
    last = ""
    for row in rows:
        case = row.case.partition(" : ")[0]
        yield (case if case != last else "", row)
        last = case


def _axis(decades: float, bottom: int) -> Iterator[str]:
    for decade in range(floor(decades) + 1):
        x = _place(10.0**decade, decades)
        yield f'<line x1="{x:.1f}" y1="{_TOP - 10}" x2="{x:.1f}" y2="{bottom}" stroke="{_FAINT}"/>'
        yield _text(x, _TOP - 18, f"{10**decade}x", anchor="middle")


def _bar(row: Row, y: int, decades: float) -> Iterator[str]:
    ratio = row.ratio or 1.0
    end = _place(ratio, decades)
    colour = _MISSED if row.met is False else _BAR
    yield _text(_LEFT - 8, y + 11, row.case.partition(" : ")[2], anchor="end")
    yield f'<rect x="{_LEFT}" y="{y}" width="{max(end - _LEFT, 1):.1f}" height="14" fill="{colour}"/>'
    goal = _goal(row)
    x = _place(goal or 1.0, decades)
    yield _text(max(end, x) + 6, y + 11, f"{ratio:.3g}x")
    if goal is not None:
        yield f'<line x1="{x:.1f}" y1="{y - 2}" x2="{x:.1f}" y2="{y + 16}" stroke="{_GOAL}" stroke-width="2"/>'


def _goal(row: Row) -> float | None:
    words = row.goal.removeprefix("at least ").removesuffix("x")
    return float(words) if row.goal.startswith("at least ") else None


def _place(ratio: float, decades: float) -> float:
    return _LEFT + _PLOT * min(max(log10(ratio), 0.0), decades) / decades


def _text(x: float, y: float, words: str, *, anchor: str = "start", weight: str = "400") -> str:
    place = f'x="{x:.1f}" y="{y}" text-anchor="{anchor}" font-weight="{weight}"'
    return f'<text {place} fill="{_INK}">{escape(words)}</text>'
