"""Drawing maps on faces. Takes tensors, gives matplotlib figures; never touches pyplot's global state."""

from __future__ import annotations

import base64
import html as _html
import io
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from facexai._messages import require
from facexai.functional import minmax
from facexai.io import write_whole

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_SEQUENTIAL = "inferno"
_DIVERGING = "RdBu_r"
_LINES = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")  # told apart also by the colour-blind
_CELL = 2.2  # inches per picture


def figure(width: float, height: float) -> Figure:
    """An empty figure of that many inches that shows itself in a notebook without pyplot.

    Raises:
        ImportError: matplotlib is missing (extra ``plot``).
    """
    require("matplotlib", extra="plot", purpose="drawing")
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    class Picture(Figure):
        def _repr_png_(self) -> bytes:
            return png(self)

    made = Picture(figsize=(width, height), layout="compressed", facecolor="white")
    FigureCanvasAgg(made)
    return made


def png(picture: Figure, dpi: int = 110) -> bytes:
    """The figure as the bytes of a PNG file."""
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing")  # names in scripts that the font lacks
        picture.savefig(buffer, format="png", dpi=dpi)
    return buffer.getvalue()


def save(picture: Figure, path: str | Path, dpi: int = 150) -> None:
    """Write the figure as a PNG file, whole or not at all."""
    data = png(picture, dpi)
    write_whole(path, lambda file: file.write(data))


def html(picture: Figure, *, caption: str) -> str:
    """The figure as one HTML element; the caption is escaped and is also the alternative text."""
    data = base64.b64encode(png(picture)).decode()
    text = _html.escape(caption, quote=True)
    return (
        f'<figure style="margin:0"><img alt="{text}" style="max-width:100%" src="data:image/png;base64,{data}">'
        f"<figcaption>{text}</figcaption></figure>"
    )


def colours(maps: Tensor) -> dict[str, Any]:
    """Colour map and limits for raw values: diverging around zero where they have both signs, else from zero.

    >>> colours(torch.tensor([-2.0, 1.0]))["vmin"]
    -2.0
    """
    finite = maps[torch.isfinite(maps)]
    low, high = (float(finite.min()), float(finite.max())) if finite.numel() else (0.0, 0.0)
    if low < 0 < high:
        limit = max(-low, high)
        return {"cmap": _DIVERGING, "vmin": -limit, "vmax": limit}
    if high <= 0 and low < 0:
        return {"cmap": f"{_SEQUENTIAL}_r", "vmin": low, "vmax": 0.0}
    return {"cmap": _SEQUENTIAL, "vmin": 0.0, "vmax": high or 1.0}


def photo(axes: Axes, image: Tensor, *, grey: bool = False) -> None:
    """One image (3, H, W) in [0, 1] without ticks; grey and light as a ground for a map."""
    pixels = image.detach().cpu().float().clamp(0, 1)
    if grey:
        pixels = pixels.mean(0, keepdim=True).expand(3, -1, -1)
    axes.imshow(pixels.permute(1, 2, 0).numpy(), interpolation="nearest")
    axes.set_axis_off()


def overlay(axes: Axes, image: Tensor | None, values: Tensor, **how: Any) -> Any:
    """One map (H, W) over a grey photo, more opaque where its value is farther from zero; returns the drawn map.

    NaN (outside of what the network saw) stays clear.
    """
    values = values.detach().cpu().float()
    limit = max(abs(how["vmin"]), abs(how["vmax"])) or 1.0
    strength = (values.abs() / limit).nan_to_num().clamp(0, 1)
    if image is not None:
        photo(axes, image, grey=True)
    alpha = 1.0 if image is None else (0.9 * strength).numpy()
    drawn = axes.imshow(values.numpy(), interpolation="bilinear", alpha=alpha, **how)
    axes.set_axis_off()
    return drawn


def bar(picture: Figure, axes: Axes, drawn: Any, label: str = "") -> None:
    """A colour bar in raw values beside one map, opaque although the map is not."""
    from matplotlib.cm import ScalarMappable

    made = picture.colorbar(ScalarMappable(drawn.norm, drawn.cmap), ax=axes, fraction=0.046, pad=0.03)
    made.ax.tick_params(labelsize=7)
    made.set_label(label, fontsize=8)


def overlays(maps: Tensor, images: Tensor | None, titles: Sequence[str], *, label: str) -> Figure:
    """Photos in the upper row, their maps in the lower one, each with its own colour bar in raw values.

    Args:
        maps: (N, H, W).
        images: (N, 3, H, W) or None.
        titles: N.
        label: what the values are.
    """
    columns = min(len(maps), 6)
    per_image = 1 if images is None else 2
    rows = per_image * -(-len(maps) // columns)
    made = figure(_CELL * columns + 0.8, 0.95 * _CELL * rows + 0.5)
    grid = made.subplots(rows, columns, squeeze=False)
    for axes in grid.flat:
        axes.set_axis_off()
    for i, values in enumerate(maps):
        row, column = per_image * (i // columns), i % columns
        lower = grid[row + per_image - 1, column]
        if images is not None:
            photo(grid[row, column], images[i])
        drawn = overlay(lower, None if images is None else images[i], values, **colours(values))
        lower.set_title(titles[i], fontsize=9, parse_math=False)
        bar(made, lower, drawn)
    made.suptitle(label, fontsize=9, parse_math=False)
    return made


def rival_grid(class_maps: Tensor, sdd: Tensor, images: Tensor | None, titles: Sequence[Sequence[str]]) -> Figure:
    """One row per image: photo, class maps of target and rivals (each scaled to [0, 1] as SDD sees them), SDD.

    Args:
        class_maps: (N, 1 + R, H, W), the target's first.
        sdd: (N, H, W).
        images: (N, 3, H, W) or None.
        titles: (N, 1 + R) names and scores.
    """
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import Normalize

    n, k = class_maps.shape[:2]
    made = figure(_CELL * 0.85 * (k + 2) + 0.9, (_CELL * 0.85 + 0.45) * n + 0.6)
    grid = made.subplots(n, k + 2, squeeze=False)
    scaled = minmax(class_maps)
    unit = {"cmap": _SEQUENTIAL, "vmin": 0.0, "vmax": 1.0}
    for i in range(n):
        image = None if images is None else images[i]
        grid[i, 0].set_axis_off()
        if image is not None:
            photo(grid[i, 0], image)
            grid[i, 0].set_title("photo", fontsize=9)
        for j in range(k):
            overlay(grid[i, 1 + j], image, scaled[i, j], **unit)
            role = "target" if j == 0 else f"rival {j}"
            grid[i, 1 + j].set_title(f"{role}: {titles[i][j]}", fontsize=8, parse_math=False)
        overlay(grid[i, k + 1], image, minmax(sdd[i]), **unit)
        grid[i, k + 1].set_title("SDD:\ntarget, not rivals", fontsize=8, weight="bold")
    scale = made.colorbar(ScalarMappable(Normalize(0, 1), _SEQUENTIAL), ax=grid, fraction=0.012, pad=0.01)
    scale.set_label("each map scaled to [0, 1]", fontsize=8)
    scale.ax.tick_params(labelsize=7)
    return made


def bars(
    names: Sequence[str],
    panels: Sequence[tuple[str, Sequence[tuple[float, tuple[float, float] | None]]]],
    *,
    grey: Sequence[bool],
) -> Figure:
    """Horizontal bars with intervals, one panel per measure.

    Args:
        names: one per bar.
        panels: title, and for each bar its value and interval.
        grey: bars to draw in grey: controls.
    """
    made = figure(4.2 * len(panels) + 1.2, 0.36 * len(names) + 1.0)
    rows = list(range(len(names)))
    for axes, (title, values) in zip(made.subplots(1, len(panels), squeeze=False, sharey=True)[0], panels, strict=True):
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
    return made


def pairs(maps: Tensor, images: Tensor | None, titles: Sequence[str], *, label: str) -> Figure:
    """A row per pair: first photo, its map, the second's map, the second photo; one scale for both maps of a pair.

    Args:
        maps: (P, 2, H, W), signed.
        images: (P, 2, 3, H, W) or None.
        titles: P.
        label: what the values are.
    """
    columns = 2 if images is None else 4
    made = figure(_CELL * columns + 0.8, (_CELL + 0.3) * len(maps) + 0.4)
    for row, part in enumerate(made.subfigures(len(maps), 1, squeeze=False)[:, 0]):
        grid = part.subplots(1, columns, squeeze=False)[0]
        limit = float(maps[row].abs().max()) or 1.0
        how = {"cmap": _DIVERGING, "vmin": -limit, "vmax": limit}
        shown = (None, None) if images is None else images[row]
        drawn = [overlay(grid[columns // 2 - 1 + i], shown[i], maps[row, i], **how) for i in (0, 1)]
        if images is not None:
            photo(grid[0], images[row, 0])
            photo(grid[3], images[row, 1])
        bar(part, grid[-1], drawn[1])
        part.suptitle(titles[row], fontsize=9, parse_math=False)
    made.supxlabel(label, fontsize=8, parse_math=False)
    return made


def matches(
    images: Tensor | None,
    found: Sequence[tuple[tuple[float, float], tuple[float, float], float]],
    size: tuple[int, int],
    title: str,
) -> Figure:
    """Two photos side by side, with lines between spots; the thicker and warmer, the more a pair of spots adds.

    Args:
        images: (2, 3, H, W) or None.
        found: ((y, x) in the first, (y, x) in the second, value), largest first.
        size: (H, W).
        title: above the photos.
    """
    from matplotlib import colormaps
    from matplotlib.patches import ConnectionPatch

    made = figure(2 * 1.7 * _CELL, 1.7 * _CELL * size[0] / size[1] + 0.4)
    left, right = made.subplots(1, 2)
    for axes, i in ((left, 0), (right, 1)):
        if images is not None:
            photo(axes, images[i], grey=True)
        else:
            axes.set_xlim(0, size[1]), axes.set_ylim(size[0], 0)
            axes.set_axis_off()
    most = found[0][2] if found else 1.0
    for place, other, value in reversed(found):
        colour = colormaps[_SEQUENTIAL](0.25 + 0.6 * value / most)
        line = ConnectionPatch(
            place[::-1],
            other[::-1],
            "data",
            "data",
            axesA=left,
            axesB=right,
            color=colour,
            linewidth=1 + 2 * value / most,
        )
        made.add_artist(line)
        for axes, (y, x) in ((left, place), (right, other)):
            axes.plot([x], [y], "o", color=colour, markersize=5, markeredgecolor="white")
    made.suptitle(title, fontsize=9, parse_math=False)
    return made


def rocs(curves: Mapping[str, tuple[Any, Any, tuple[float, float]]], *, finest: float) -> Figure:
    """Share of accepted genuine pairs over that of accepted impostor pairs, on a logarithmic axis.

    Args:
        curves: by the words of the legend: arrays FAR (K,) and TAR (K,), both rising from 0 to 1, and the point
            (FAR, TAR) of the equal error rate.
        finest: the lowest FAR of the axis, in (0, 1); a point below it stands at the edge.
    """
    from matplotlib.ticker import PercentFormatter

    made = figure(5.6, 4.0)
    axes = made.subplots()
    lowest = 1.0
    for i, (name, (far, tar, (x, y))) in enumerate(curves.items()):
        start = max(int((far <= finest).sum()) - 1, 0)  # what is left of the edge would be a wall there
        colour = _LINES[i % len(_LINES)]
        axes.step(far[start:].clip(finest), tar[start:], where="post", color=colour, linewidth=1.7)
        axes.plot(max(x, finest), y, "o", color=colour, markeredgecolor="white", markersize=8, clip_on=False, zorder=3)
        axes.plot([], [], "o-", color=colour, markeredgecolor="white", label=name)
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
    return made
