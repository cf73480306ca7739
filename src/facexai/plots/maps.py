"""Maps on faces, of classes and of pairs."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from typing import TYPE_CHECKING

from torch import Tensor

from facexai.functional import minmax
from facexai.plots.drawing import CELL, DIVERGING, SEQUENTIAL, bar, colours, figure, overlay, photo

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_LETTERS = 12  # of a title that fit into an inch


def overlays(maps: Tensor, images: Tensor | None, titles: Sequence[str], *, label: str) -> Figure:
    """Returns photos in the upper row, their maps in the lower one, each with its own colour bar in raw values.

    Args:
        maps: (N, H, W).
        images: (N, 3, H, W) or None.
        titles: N.
        label: what the values are.
    """
    columns = min(len(maps), 6)
    per_image = 1 if images is None else 2
    rows = per_image * -(-len(maps) // columns)
    result = figure(CELL * columns + 0.8, 0.95 * CELL * rows + 0.5)
    grid = result.subplots(rows, columns, squeeze=False)
    for axes in grid.flat:
        axes.set_axis_off()
    for i, values in enumerate(maps):
        row, column = per_image * (i // columns), i % columns
        lower = grid[row + per_image - 1, column]
        if images is not None:
            photo(grid[row, column], images[i])
        drawn = overlay(lower, None if images is None else images[i], values, **colours(values))
        lower.set_title(titles[i], fontsize=9, parse_math=False)
        bar(result, lower, drawn)
    letters = int(_LETTERS * (CELL * columns + 0.8))  # matplotlib's own wrapping would read names as mathematics
    result.suptitle(textwrap.fill(label, letters), fontsize=9, parse_math=False)
    return result


def rival_grid(class_maps: Tensor, sdd: Tensor, images: Tensor | None, titles: Sequence[Sequence[str]]) -> Figure:
    """Draws one row per image: photo, class maps of target and rivals (each scaled to [0, 1] as SDD sees them), SDD.

    Args:
        class_maps: (N, 1 + R, H, W), the target's first.
        sdd: (N, H, W).
        images: (N, 3, H, W) or None.
        titles: (N, 1 + R) names and scores.
    """
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import Normalize

    n, k = class_maps.shape[:2]
    result = figure(CELL * 0.85 * (k + 2) + 0.9, (CELL * 0.85 + 0.45) * n + 0.6)
    grid = result.subplots(n, k + 2, squeeze=False)
    scaled = minmax(class_maps)
    unit = {"cmap": SEQUENTIAL, "vmin": 0.0, "vmax": 1.0}
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
    scale = result.colorbar(ScalarMappable(Normalize(0, 1), SEQUENTIAL), ax=grid, fraction=0.012, pad=0.01)
    scale.set_label("each map scaled to [0, 1]", fontsize=8)
    scale.ax.tick_params(labelsize=7)
    return result


def pairs(maps: Tensor, images: Tensor | None, titles: Sequence[str], *, label: str) -> Figure:
    """Returns a row per pair: first photo, its map, the second's map, the second photo; one scale for
    both maps of a pair.

    Args:
        maps: (P, 2, H, W), signed.
        images: (P, 2, 3, H, W) or None.
        titles: P.
        label: what the values are.
    """
    columns = 2 if images is None else 4
    result = figure(CELL * columns + 0.8, (CELL + 0.3) * len(maps) + 0.4)
    result.set_layout_engine("constrained")  # "compressed" cuts off the numbers of colour bars in parts of a figure
    for row, part in enumerate(result.subfigures(len(maps), 1, squeeze=False)[:, 0]):
        grid = part.subplots(1, columns, squeeze=False)[0]
        limit = float(maps[row].abs().max()) or 1.0
        how = {"cmap": DIVERGING, "vmin": -limit, "vmax": limit}
        shown = (None, None) if images is None else images[row]
        drawn = [overlay(grid[columns // 2 - 1 + i], shown[i], maps[row, i], **how) for i in (0, 1)]
        if images is not None:
            photo(grid[0], images[row, 0])
            photo(grid[3], images[row, 1])
        bar(part, grid[-1], drawn[1])
        part.suptitle(titles[row], fontsize=9, parse_math=False)
    result.supxlabel(label, fontsize=8, parse_math=False)
    return result


def matches(
    images: Tensor | None,
    found: Sequence[tuple[tuple[float, float], tuple[float, float], float]],
    size: tuple[int, int],
    title: str,
) -> Figure:
    """Draws two photos side by side, with lines between locations; the thicker and warmer, the more a pair
    of locations adds.

    Args:
        images: (2, 3, H, W) or None.
        found: ((y, x) in the first, (y, x) in the second, value), largest first.
        size: (H, W).
        title: above the photos.
    """
    from matplotlib import colormaps
    from matplotlib.patches import ConnectionPatch

    result = figure(2 * 1.7 * CELL, 1.7 * CELL * size[0] / size[1] + 0.4)
    left, right = result.subplots(1, 2)
    for axes, i in ((left, 0), (right, 1)):
        if images is not None:
            photo(axes, images[i], grey=True)
        else:
            axes.set_xlim(0, size[1]), axes.set_ylim(size[0], 0)
            axes.set_axis_off()
    most = found[0][2] if found else 1.0
    for place, other, value in reversed(found):
        colour = colormaps[SEQUENTIAL](0.25 + 0.6 * value / most)
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
        result.add_artist(line)
        for axes, (y, x) in ((left, place), (right, other)):
            axes.plot([x], [y], "o", color=colour, markersize=5, markeredgecolor="white")
    result.suptitle(title, fontsize=9, parse_math=False)
    return result
