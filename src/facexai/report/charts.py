"""Draws charts as SVG in the colours of the page; every number comes from the record."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any
from unicodedata import east_asian_width

from markupsafe import Markup, escape

from facexai.report.format import NONE, apart, number

_WIDE, _ROW = 560, 26
_LEFT = 56
_LETTER = 7.2  # breadth, generous
_BROAD, _WIDEST = 11.0, 13.5  # of capitals and the like, of ideographs
_MOST = 28 * _LETTER
_ROOM = "0" * 9  # of the longest value, at least


def bars(rows: Sequence[Mapping[str, Any]], alt: str) -> Markup:
    """Draws horizontal bars with intervals: rows of ``name``, ``value``, perhaps ``low``, ``high``, and ``control``."""
    reach = [v for row in rows for v in (row["value"], row.get("low"), row.get("high")) if v is not None]
    low, high = float(min([0.0, *reach])), float(max([0.0, *reach]))
    names = [_clipped(str(row["name"])) for row in rows]
    controls = [row["value"] for row in rows if row.get("control")]
    digits = apart([row["value"] for row in rows if not row.get("control")], controls)
    values = [number(row["value"], digits) for row in rows]
    label, right = (16 + max(map(_breadth, column)) for column in (names, [*values, _ROOM]))
    scale = (_WIDE - label - right) / max(high - low, 1e-300)

    def x(value: float) -> float:
        return float(round(label + (value - low) * scale, 1))

    parts = []
    for place, row in enumerate(rows):
        y, value = place * _ROW, row["value"]
        kind = "control" if row.get("control") else "own"
        parts.append(f'<text class="name" x="{label - 8:.1f}" y="{y + 17}">{escape(names[place])}</text>')
        if value is None:
            parts.append(f'<text x="{x(0) + 6}" y="{y + 17}">{NONE}</text>')
            continue
        left, width = min(x(0), x(value)), abs(x(value) - x(0))
        parts.append(f'<rect class="{kind}" x="{left}" y="{y + 5}" width="{max(width, 1):.1f}" height="16" rx="2"/>')
        if row.get("low") is not None and row.get("high") is not None:
            parts.append(f'<path class="whisker" d="M{x(row["low"])} {y + 13}H{x(row["high"])}"/>')
        parts.append(f'<text class="value" x="{_WIDE}" y="{y + 17}" data-value="{value!r}">{values[place]}</text>')
    parts.append(f'<path class="zero" d="M{x(0)} 0V{len(rows) * _ROW}"/>')
    return _svg(_WIDE, len(rows) * _ROW, "".join(parts), alt, "bars")


def bands(rows: Sequence[Mapping[str, Any]], marks: Sequence[float], alt: str, unit: str) -> Markup:
    """Draws the signed influence of frequency bands: rows of ``low``, ``high`` (cycles per face) and ``influence``."""
    values = [float(row["influence"]) for row in rows]
    place = _log(max(float(rows[-1]["high"]), 2.0), _LEFT, _WIDE - 10.0)
    y = _linear(min(0.0, *values), max(0.0, *values), 150.0, 12.0)
    parts = []
    for row, value in zip(rows, values, strict=True):
        x, right = place(row["low"]), place(row["high"])
        top, bottom = sorted((y(0), y(value)))
        title = f"{number(row['low'])} to {number(row['high'])} cycles per face: {number(value)} {unit}"
        parts.append(
            f'<rect class="{"plus" if value >= 0 else "minus"}" x="{x:.1f}" y="{top:.1f}" '
            f'width="{max(right - x - 0.5, 0.8):.1f}" height="{max(bottom - top, 0.3):.1f}">'
            f"<title>{escape(title)}</title></rect>"
        )
    return _svg(_WIDE, 190, "".join(parts) + _frame(y, values) + _marks(marks, place), alt, "bands")


def curves(
    series: Sequence[Mapping[str, Any]], marks: Sequence[float], alt: str, *, log: bool = True, width: int = _WIDE
) -> Markup:
    """Draws lines with intervals: ``name``, ``x``, ``y``, perhaps ``low`` and ``high``; six have distinct colours."""
    everything = [v for one in series for key in ("y", "low", "high") for v in one.get(key) or ()]
    ends = [v for one in series for v in one["x"]]
    right = width - 10.0
    place = _log(max(max(ends), 2.0), _LEFT, right) if log else _linear(min(ends), max(ends), _LEFT, right)
    y = _linear(min(0.0, *everything), max(0.0, *everything), 150.0, 12.0)
    parts = []
    for i, one in enumerate(series):
        if one.get("low"):
            there = [f"{place(a):.1f} {y(b):.1f}" for a, b in zip(one["x"], one["high"], strict=True)]
            back = [f"{place(a):.1f} {y(b):.1f}" for a, b in zip(one["x"], one["low"], strict=True)][::-1]
            parts.append(f'<path class="area line-{i % 6}" d="M{" L".join([*there, *back])}Z"/>')
        points = " L".join(f"{place(a):.1f} {y(b):.1f}" for a, b in zip(one["x"], one["y"], strict=True))
        parts.append(f'<path class="line line-{i % 6}" d="M{points}"/>')
    return _svg(width, 190, "".join(parts) + _frame(y, everything, width) + _marks(marks, place), alt, "curves")


def _clipped(name: str) -> str:
    """Truncates names to a third of the width; tables have the whole name."""
    if _breadth(name) <= _MOST:
        return name
    ends = itertools.accumulate(map(_breadth, name))
    return f"{name[: sum(end <= _MOST - _LETTER for end in ends)]}\u2026"


def _breadth(text: str) -> float:
    """Returns an upper estimate of the width of a text."""
    return sum(
        _WIDEST if east_asian_width(c) in "WF" else _BROAD if c.isupper() or c in "mw%@" else _LETTER for c in text
    )


def _log(highest: float, left: float, right: float) -> Callable[[float], float]:
    return lambda value: left + (right - left) * math.log1p(max(float(value), 0.0)) / math.log1p(highest)


def _linear(low: float, high: float, at_low: float, at_high: float) -> Callable[[float], float]:
    return lambda value: at_low + (at_high - at_low) * (float(value) - low) / max(high - low, 1e-300)


def _frame(y: Callable[[float], float], values: Sequence[float], width: int = _WIDE) -> str:
    """Draws the zero line, and the extreme values at the left."""
    parts = [f'<path class="zero" d="M{_LEFT} {y(0):.1f}H{width - 10}"/>']
    parts.append(f'<text class="name" x="{_LEFT - 4}" y="{y(0) + 4:.1f}">0</text>')
    for value in {min(values), max(values)}:
        if abs(y(value) - y(0)) > 14:
            text = f'<text class="name" x="{_LEFT - 4}" y="{y(value) + 4:.1f}" data-value="{value!r}">'
            parts.append(f"{text}{number(value, 2)}</text>")
    return "".join(parts)


def _marks(marks: Sequence[float], place: Callable[[float], float]) -> str:
    return "".join(
        f'<path class="tick" d="M{place(m):.1f} 156v5"/><text class="mark" x="{place(m):.1f}" y="176" '
        f'data-value="{m!r}">{number(m)}</text>'
        for m in marks
    )


def _svg(width: int, height: int, inside: str, alt: str, kind: str) -> Markup:
    label = escape(alt)
    return Markup(
        f'<svg class="chart {kind}" viewBox="0 0 {width} {height}" role="img" aria-label="{label}">{inside}</svg>'
    )
