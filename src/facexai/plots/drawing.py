"""Parts of every figure: figures without pyplot, files, photos, maps over photos, colours."""

from __future__ import annotations

import io
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from facexai import _html
from facexai._errors import require, suppress_warnings
from facexai.io import write_whole

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

SEQUENTIAL = "inferno"
DIVERGING = "RdBu_r"
LINES = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")  # told apart also by the colour-blind
CELL = 2.2  # inches per picture


def figure(width: float, height: float) -> Figure:
    """Returns an empty figure of that many inches that shows itself in a notebook without pyplot.

    Raises:
        ImportError: matplotlib is missing (extra ``plot``).
    """
    require("matplotlib", extra="plot", purpose="drawing")
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.text import Text

    class Picture(Figure):
        def draw(self, renderer: Any) -> None:
            for text in self.findobj(Text):  # names of files that are no text, which fonts refuse
                text.set_text(text.get_text().encode("utf-8", "backslashreplace").decode())
            super().draw(renderer)

        def _repr_png_(self) -> bytes:
            return png(self)

    result = Picture(figsize=(width, height), layout="compressed", facecolor="white")
    FigureCanvasAgg(result)
    return result


def png(picture: Figure, dpi: int = 110) -> bytes:
    """Returns the figure as the bytes of a PNG file."""
    buffer = io.BytesIO()
    with suppress_warnings(UserWarning, "Glyph .* missing"):  # names in scripts that the font lacks
        picture.savefig(buffer, format="png", dpi=dpi)
    return buffer.getvalue()


def save(picture: Figure, path: str | Path, dpi: int = 150) -> None:
    """Writes the figure as a PNG file, whole or not at all."""
    data = png(picture, dpi)
    write_whole(path, lambda file: file.write(data))


def html(picture: Figure, *, caption: str) -> str:
    """Returns the figure as one HTML element; the caption is escaped and is also the alternative text."""
    return _html.figure(png(picture), caption)


def colours(maps: Tensor) -> dict[str, Any]:
    """Returns the colour map and limits for raw values: diverging around zero if they have both signs, else from zero.

    >>> colours(torch.tensor([-2.0, 1.0]))["vmin"]
    -2.0
    """
    finite = maps[torch.isfinite(maps)]
    low, high = (float(finite.min()), float(finite.max())) if finite.numel() else (0.0, 0.0)
    if low < 0 < high:
        limit = max(-low, high)
        return {"cmap": DIVERGING, "vmin": -limit, "vmax": limit}
    if high <= 0 and low < 0:
        return {"cmap": f"{SEQUENTIAL}_r", "vmin": low, "vmax": 0.0}
    return {"cmap": SEQUENTIAL, "vmin": 0.0, "vmax": high or 1.0}


def photo(axes: Axes, image: Tensor, *, grey: bool = False) -> None:
    """Draws one image (3, H, W) in [0, 1] without ticks; grey and light as a background for a map."""
    pixels = image.detach().cpu().float().clamp(0, 1)
    if grey:
        pixels = pixels.mean(0, keepdim=True).expand(3, -1, -1)
    axes.imshow(pixels.permute(1, 2, 0).numpy(), interpolation="nearest")
    axes.set_axis_off()


def overlay(axes: Axes, image: Tensor | None, values: Tensor, **how: Any) -> Any:
    """Draws one map (H, W) over a grey photo, more opaque where its value is farther from zero; returns the drawn map.

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


def in_legend(name: str) -> str:
    """Returns a name that a legend shows: matplotlib leaves out those that begin with an underscore."""
    return f"\u200b{name}" if name.startswith("_") else name


def bar(picture: Figure, axes: Axes, drawn: Any, label: str = "") -> None:
    """Draws a colour bar in raw values beside one map, opaque although the map is not."""
    from matplotlib.cm import ScalarMappable

    made = picture.colorbar(ScalarMappable(drawn.norm, drawn.cmap), ax=axes, fraction=0.046, pad=0.03)
    made.ax.tick_params(labelsize=7)
    made.set_label(label, fontsize=8)
