"""Photos beside what they would have to be."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from torch import Tensor

from facexai.plots.drawing import CELL, DIVERGING, LINES, bar, figure, photo

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


def counterfactuals(
    images: Tensor, edited: Tensor, masks: Tensor, paths: Tensor, titles: Sequence[tuple[str, str]]
) -> Figure:
    """Returns a row per image: image, counterfactual, pixels that were free, signed difference, scores on the way.

    Args:
        images, edited: (N, 3, H, W) in [0, 1].
        masks: (N, H, W) boolean.
        paths: (N, S).
        titles: N times the titles of the image and of the counterfactual.
    """
    result = figure(5.4 * CELL, (CELL + 0.25) * len(images) + 0.3)
    grid = result.subplots(len(images), 5, squeeze=False, width_ratios=(1, 1, 1, 1.1, 1.1))
    differences = (edited - images).mean(1).detach().cpu().float().numpy()
    limit = float(abs(differences).max()) or 1.0
    for row, (first, second) in enumerate(titles):
        photo(grid[row, 0], images[row])
        photo(grid[row, 1], edited[row])
        photo(grid[row, 2], images[row] * masks[row] + 0.5 * (1 - masks[row].float()))
        drawn = grid[row, 3].imshow(differences[row], cmap=DIVERGING, vmin=-limit, vmax=limit, interpolation="nearest")
        grid[row, 3].set_axis_off()
        bar(result, grid[row, 3], drawn)
        said = (first, second, f"free to change: {float(masks[row].float().mean()):.0%}", "change of brightness")
        for axes, title in zip(grid[row], said, strict=False):
            axes.set_title(title, fontsize=8, parse_math=False)
        _path(grid[row, 4], paths[row])
    return result


def _path(axes: Axes, path: Tensor) -> None:
    """Draws the score of the estimate at each step; above zero the decision is positive."""
    values = path.detach().cpu().float().numpy()
    axes.plot(values, color=LINES[0], linewidth=1.4)
    axes.axhline(0, color="#777777", linewidth=0.8, linestyle=":")
    axes.set_title("score of the estimate, by step", fontsize=8)
    axes.tick_params(labelsize=7)
    axes.spines[["top", "right"]].set_visible(False)
