"""Frequencies: discs of rings, lines, and what bands look like in a face."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import partial
from operator import mul
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor

from facexai import functional
from facexai.plots.drawing import CELL, DIVERGING, LINES, SEQUENTIAL, bar, figure, in_legend, photo

if TYPE_CHECKING:
    import numpy as np
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from numpy.typing import NDArray

Radius = Literal["log", "linear"]

_PIXELS = 480  # of a disc
_MARKED = (4, 8, 16, 32, 64)  # cycles per breadth of the face
_PER_FACE = "cycles per breadth of the face"


def discs(
    rings: Tensor,
    edges: Tensor,
    face: float,
    titles: Sequence[str],
    images: Tensor | None,
    look: Literal["directed", "absolute"],
    unit: str,
    only: int | None,
    radius: Radius,
) -> Figure:
    """Returns a row per pair: photos, and between them a disc with low frequencies in the middle.

    Args:
        rings: (P, 2, B, S), influence for the left and the right half.
        edges: (B + 1,) in cycles per width of the image.
        face: face width as a share of that width.
        titles: P.
        images: (P, 1 or 2, 3, H, W) or None.
        look: ``"directed"`` or ``"absolute"``, relative to the largest value of a row.
        unit: of the influence.
        only: which image of the pair the whole disc is about; None: one half each, or neither.
        radius: of the rings in the disc: the logarithm of 1 + frequency, or the frequency.
    """
    photos = 0 if images is None else images.shape[1]
    ratios = [1.0] * min(photos, 1) + [1.5] + [1.0] * (photos - 1)
    result = figure(CELL * sum(ratios) + 2.0, (1.3 * CELL + 0.35) * len(rings) + 0.2)
    for row, grid in enumerate(result.subplots(len(rings), len(ratios), squeeze=False, width_ratios=ratios)):
        if images is not None:
            photo(grid[0], images[row, 0])
        if photos == 2:
            assert images is not None
            photo(grid[2], images[row, 1])
            for place, name in ((0, "first"), (2, "second")):
                grid[place].set_title(f"{name}, loses bands" if only in (None, place // 2) else name, fontsize=8)
        middle = grid[min(photos, 1)]
        values = rings[row].detach().cpu().double()
        low, high = float(values.min()), float(values.max())
        largest = max(-low, high) or 1.0
        if look == "absolute":
            how = {"cmap": SEQUENTIAL, "vmin": 0.0, "vmax": 1.0}
            values = values.abs()
        else:
            how = {"cmap": DIVERGING, "vmin": -1.0, "vmax": 1.0}
        drawn = middle.imshow(
            raster(values / largest, edges, radius), interpolation="nearest", extent=(-1, 1, 1, -1), **how
        )
        _circles(middle, float(edges[-1]), face, radius, two=only is None and photos == 2)
        bar(result, grid[-1], drawn, "share of the largest influence")
        told = f"{titles[row]}\ninfluence from {low:+.3g} to {high:+.3g} ({unit})"
        middle.set_title(told, fontsize=8, parse_math=False)
    hint = (
        "red: without the band the score falls; blue: it rises" if look == "directed" else "how much the band matters"
    )
    result.supxlabel(f"{hint}; circles: {_PER_FACE}", fontsize=8)
    return result


def _place(frequency: Tensor, highest: float, radius: Radius) -> Tensor:
    """Returns the radius in the disc, 0 to 1, of a frequency."""
    return torch.log1p(frequency) / math.log1p(highest) if radius == "log" else frequency / highest


def raster(values: Tensor, edges: Tensor, radius: Radius) -> NDArray[np.float64]:
    """Returns (n, n) picture of values (2, B, S): rings by radius, halves left and right, sectors by
    direction; NaN outside.
    """
    line = (torch.arange(_PIXELS, dtype=torch.float64) + 0.5) / _PIXELS * 2 - 1
    y, x = torch.meshgrid(line, line, indexing="ij")
    distance = torch.hypot(x, y)
    ring = torch.bucketize(distance, _place(edges, float(edges[-1]), radius), right=True) - 1
    sectors = values.shape[2]
    sector = torch.floor(torch.atan2(y, x) * (sectors / math.pi) + 0.5).long() % sectors
    picture = values[(x > 0).long(), ring.clamp(0, values.shape[1] - 1), sector]
    result: NDArray[np.float64] = torch.where(distance < 1, picture, torch.nan).numpy()
    return result


def _circles(axes: Axes, highest: float, face: float, radius: Radius, *, two: bool) -> None:
    """Draws marks of the frequency, and the line between the halves."""
    from matplotlib.patches import Circle

    for mark in (1, 2, *_MARKED) if radius == "log" else _MARKED:
        place = float(_place(torch.tensor(mark / face), highest, radius))
        if 0.1 < place < 0.97:
            axes.add_patch(Circle((0, 0), place, fill=False, color="#777777", linewidth=0.5, linestyle=":"))
            axes.annotate(str(mark), (0, -place), fontsize=6, ha="center", va="center", color="#333333", bbox=_LABEL)
    axes.add_patch(Circle((0, 0), 1, fill=False, color="#333333", linewidth=0.8))
    if two:
        axes.plot([0, 0], [-1, 1], color="#333333", linewidth=0.6)
    axes.set_axis_off()


_LABEL = {"boxstyle": "round,pad=0.15", "facecolor": "white", "edgecolor": "none", "alpha": 0.8}


def lines(curves: Sequence[tuple[str, Tensor]], edges: Tensor, face: float, unit: str) -> Figure:
    """Returns raw influence over the frequency, on a logarithmic axis.

    Args:
        curves: words of the legend and (B,).
        edges, face, unit: as for :func:`discs`.
    """
    result = figure(6.2, 3.4)
    axes = result.subplots()
    middle = (edges[1:] + edges[:-1]).numpy() / 2 * face
    for i, (name, values) in enumerate(curves):
        width = 2.0 if i == 0 else 1.1
        axes.plot(
            middle, values.detach().cpu().numpy(), color=LINES[i % len(LINES)], linewidth=width, label=in_legend(name)
        )
    axes.axhline(0, color="#777777", linewidth=0.8)
    axes.set_ylabel(f"influence ({unit})", fontsize=9)
    _frequency_axis(axes, edges.numpy(), face)
    return result


def group_spectra(spectra: Mapping[str, Any], intervals: Any, edges: Any, face: float, title: str) -> Figure:
    """Returns spectra of groups with intervals.

    Args:
        spectra: (B,) by the name of the group.
        intervals: (2, G, B).
        edges: (B + 1,) in cycles per width of the image.
        face: face width as a share of that width.
        title: above the axes.
    """
    result = figure(6.2, 3.6)
    axes = result.subplots()
    middle = (edges[1:] + edges[:-1]) / 2 * face
    for i, (name, values) in enumerate(spectra.items()):
        colour = LINES[i % len(LINES)]
        axes.plot(middle, 100 * values, color=colour, linewidth=1.7, label=in_legend(name))
        axes.fill_between(middle, *(100 * intervals[:, i]), color=colour, alpha=0.2, linewidth=0)
    axes.set_ylim(bottom=0)
    axes.set_ylabel("share of the influence, %", fontsize=9)
    axes.set_title(title, fontsize=9, parse_math=False)
    _frequency_axis(axes, edges, face)
    return result


def _frequency_axis(axes: Axes, edges: Any, face: float) -> None:
    """Labels a logarithmic axis, per face below and per image above; the legend has no mathematics."""
    from matplotlib.ticker import ScalarFormatter

    low, high = float(edges[0] + edges[1]) / 2 * face, float(edges[-1]) * face
    axes.set_xscale("log")
    axes.set_xlim(low, high)
    ticks = [mark for mark in (1, 2, *_MARKED) if low < mark < high]
    axes.set_xticks(ticks, [str(mark) for mark in ticks])
    axes.minorticks_off()
    axes.set_xlabel(_PER_FACE, fontsize=9)
    above = axes.secondary_xaxis("top", functions=(partial(mul, 1 / face), partial(mul, face)))
    above.set_xlabel("cycles per width of the image", fontsize=8)
    above.tick_params(labelsize=7)
    above.xaxis.set_major_formatter(ScalarFormatter())
    axes.grid(color="#dddddd", linewidth=0.6)
    axes.spines["right"].set_visible(False)
    axes.tick_params(labelsize=8)
    for text in axes.legend(fontsize=8, frameon=False).get_texts():
        text.set_parse_math(False)


def strip(
    image: Tensor,
    edges: Tensor,
    influence: Tensor,
    face: float,
    unit: str,
    *,
    limit: Literal["corner", "circle"] = "corner",
    keep_dc: bool = False,
) -> Figure:
    """Draws one face in octaves: the component of each band, and the face without it, with their influence.

    Args:
        image: (3, H, W).
        edges: (B + 1,) in cycles per width of the image.
        influence: (B,).
        face, unit: as for :func:`discs`.
        limit, keep_dc: of the bands, see :func:`facexai.functional.bands`.
    """
    pixels = image.detach().cpu().double().contiguous()
    size = (image.shape[-2], image.shape[-1])
    layout = functional.bands(size, float(edges[1] - edges[0]), limit, keep_dc=keep_dc)
    octave = torch.tensor([0 if edge < 1 else int(math.log2(edge)) + 1 for edge in edges[:-1].tolist()])
    of_cell = torch.where(layout.cells >= 0, octave[layout.cells.clamp(min=0)], -1)
    spectrum = torch.fft.rfft2(pixels)
    groups = sorted(set(octave.tolist()))
    result = figure(1.35 * len(groups) + 0.6, 3.6)
    grid = result.subplots(2, len(groups), squeeze=False)
    for column, group in enumerate(groups):
        held = torch.fft.irfft2(spectrum * (of_cell == group), s=layout.size)
        rows = (octave == group).nonzero()[:, 0]
        low, high = (float(edges[k]) * face for k in (int(rows[0]), int(rows[-1]) + 1))
        photo(grid[0, column], held if group == 0 else 0.5 + 0.5 * held / float(held.abs().max().clamp(min=1e-12)))
        photo(grid[1, column], pixels - held)
        grid[0, column].set_title(f"{low:.2g} to {high:.2g}", fontsize=8)
        grid[1, column].set_title(f"without: {float(influence[rows].sum()):+.3f}", fontsize=8)
    result.suptitle(
        f"above: what the bands hold ({_PER_FACE}, contrast stretched); below: the face without them, and the sum of "
        f"their influence ({unit})",
        fontsize=8,
    )
    return result
