"""Numbers as bars and curves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from facexai.plots.drawing import LINES, figure, in_legend

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def bars(
    names: Sequence[str],
    panels: Sequence[tuple[str, Sequence[tuple[float, tuple[float, float] | None]]]],
    *,
    grey: Sequence[bool],
) -> Figure:
    """Returns horizontal bars with intervals, one panel per measure.

    Args:
        names: one per bar.
        panels: title, and for each bar its value and interval.
        grey: bars to draw in grey: controls.
    """
    result = figure(4.2 * len(panels) + 1.2, 0.36 * len(names) + 1.0)
    rows = list(range(len(names)))
    for axes, (title, values) in zip(
        result.subplots(1, len(panels), squeeze=False, sharey=True)[0], panels, strict=True
    ):
        colours_ = ["#999999" if g else "#0072B2" for g in grey]
        axes.barh(rows, [value for value, _ in values], color=colours_, height=0.7)
        for row, (_, interval) in enumerate(values):
            if interval is not None:
                axes.plot(interval, [row, row], color="black", linewidth=1.2)
        axes.set_yticks(rows, names, fontsize=8, parse_math=False)
        axes.set_title(title, fontsize=9)
        axes.spines[["top", "right"]].set_visible(False)
        axes.tick_params(labelsize=8)
    axes.invert_yaxis()
    return result


def curves(shares: Any, values: Mapping[str, Any], over: str, what: str) -> Figure:
    """Draws curves over a share of the picture, the first one strong and the others thin.

    Args:
        shares: (S,), 0 to 1.
        values: (S,) by the words of the legend.
        over: what the shares are of.
        what: the values are.
    """
    from matplotlib.ticker import PercentFormatter

    result = figure(5.6, 3.6)
    axes = result.subplots()
    for i, (name, row) in enumerate(values.items()):
        width = 2.2 if i == 0 else 1.2
        axes.plot(shares, row, color=LINES[i % len(LINES)], linewidth=width, label=in_legend(name), zorder=3 - i / 10)
    axes.xaxis.set_major_formatter(PercentFormatter(1.0))
    axes.set_xlabel(over, fontsize=9, parse_math=False)
    axes.set_ylabel(what, fontsize=9)
    axes.grid(color="#dddddd", linewidth=0.6)
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(labelsize=8)
    for text in axes.legend(fontsize=8, frameon=False).get_texts():
        text.set_parse_math(False)
    return result


def rocs(curves: Mapping[str, tuple[Any, Any, tuple[float, float]]], *, finest: float) -> Figure:
    """Returns the share of accepted genuine pairs over that of accepted impostor pairs, on a logarithmic axis.

    Args:
        curves: by the words of the legend: arrays FAR (K,) and TAR (K,), both rising from 0 to 1, and the point
            (FAR, TAR) of the equal error rate.
        finest: the lowest FAR of the axis, in (0, 1); a point below it is drawn at the edge.
    """
    from matplotlib.ticker import PercentFormatter

    result = figure(5.6, 4.0)
    axes = result.subplots()
    lowest = 1.0
    for i, (name, (far, tar, (x, y))) in enumerate(curves.items()):
        start = max(int((far <= finest).sum()) - 1, 0)  # what is left of the edge would be a wall there
        colour = LINES[i % len(LINES)]
        axes.step(far[start:].clip(finest), tar[start:], where="post", color=colour, linewidth=1.7)
        axes.plot(max(x, finest), y, "o", color=colour, markeredgecolor="white", markersize=8, clip_on=False, zorder=3)
        axes.plot([], [], "o-", color=colour, markeredgecolor="white", label=in_legend(name))
        lowest = min(lowest, float(tar[start]))
    even = [finest ** (1 - i / 200) for i in range(201)]
    axes.plot(even, [1 - x for x in even], ":", color="#777777", linewidth=1, label="FAR = 1 - TAR", zorder=1)
    bottom = 0.0 if lowest < 0.6 else min(1 - 1.15 * (1 - lowest), 0.95)
    axes.set_ylim(bottom, 1 + 0.02 * (1 - bottom))
    axes.set_xscale("log")
    axes.set_xlim(finest, 1.0)
    axes.yaxis.set_major_formatter(PercentFormatter(1.0))
    axes.set_xlabel("false accept rate, FAR", fontsize=9)
    axes.set_ylabel("true accept rate, TAR", fontsize=9)
    axes.grid(color="#dddddd", linewidth=0.6)
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(which="both", labelsize=8)
    for text in axes.legend(loc="lower right", fontsize=8, frameon=True, edgecolor="none").get_texts():
        text.set_parse_math(False)
    return result
