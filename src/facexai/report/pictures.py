"""The pictures of a page, embedded as PNG: photos, maps over grey photos, discs of frequencies."""

from __future__ import annotations

import hashlib
import io
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from facexai._errors import require
from facexai.functional import upsample
from facexai.plots import colours

_LARGEST = 32  # cells of a side that a page holds; finer maps are averaged over blocks
_DIGITS = 5
_DRAWN = 256  # pixels of a side that small images are enlarged to


class ImageStore:
    """Stores pictures by name, each once."""

    def __init__(self) -> None:
        self.pictures: dict[str, bytes] = {}
        self._known: dict[tuple[tuple[int, ...], bytes], str] = {}

    def add(self, pixels: Tensor | NDArray[np.uint8]) -> str:
        """Stores (3, H, W) in [0, 1] or (H, W, 3 or 4) bytes and returns the picture's name."""
        raw = _bytes(pixels) if isinstance(pixels, Tensor) else pixels
        key = (raw.shape, hashlib.sha256(raw.tobytes()).digest())
        if key not in self._known:
            self._known[key] = f"picture-{len(self.pictures) + 1}"
            self.pictures[self._known[key]] = _png(raw)
        return self._known[key]


def _bytes(image: Tensor) -> NDArray[np.uint8]:
    result: NDArray[np.uint8] = (image.detach().cpu().float().clamp(0, 1) * 255).round().byte().permute(1, 2, 0).numpy()
    return result


def _png(pixels: NDArray[np.uint8]) -> bytes:
    picture = Image.fromarray(pixels)
    times = max(1, _DRAWN // max(picture.size))
    if times > 1:  # browsers blur what they enlarge
        picture = picture.resize((picture.width * times, picture.height * times), Image.Resampling.NEAREST)
    file = io.BytesIO()
    picture.save(file, "PNG")
    return file.getvalue()


def view(
    album: ImageStore,
    cells: Tensor,
    size: tuple[int, int],
    image: Tensor | None,
    *,
    title: str,
    unit: str,
    alt: str,
    blur: float = 0.0,
    whole: bool = False,
) -> dict[str, Any]:
    """Returns a photo, a map over it, and the values that the page lists: what :file:`schema.json` calls a view.

    Args:
        album: takes the pictures.
        cells: (h, w), raw values.
        size: (H, W) of the image.
        image: (3, H, W), or None.
        title, unit, alt: words; the alternative text of the map.
        blur: sigma in pixels of a Gaussian over the drawn map; the numbers are never blurred.
        whole: include every cell, however many there are.
    """
    from facexai.perturb import gaussian_blur

    cells = cells.detach().cpu().float()
    values = upsample(cells[None], size)
    drawn = (gaussian_blur(values[None], blur)[0] if blur else values)[0]
    told, note = (cells, "") if whole else _told(cells)
    how = colours(drawn if blur else cells)  # a smoothed map has other limits than its values
    return {
        "title": title,
        "unit": unit,
        "alt": alt,
        "photo": None if image is None else album.add(image),
        "map": album.add(_over(drawn, image, how)),
        "colours": how["cmap"],
        "low": _short(how["vmin"]),
        "high": _short(how["vmax"]),
        "cells": [[_short(v) for v in row] for row in told.tolist()],
        "note": "; ".join(part for part in (note, "drawn smoothed" if blur else "") if part),
    }


def _told(cells: Tensor) -> tuple[Tensor, str]:
    """Returns the values that a page lists, and their description."""
    h, w = cells.shape
    if max(h, w) <= _LARGEST:
        return cells, ""
    small = (min(h, _LARGEST), min(w, _LARGEST))
    down, across = (_area_weights(pixels, blocks) for pixels, blocks in zip((h, w), small, strict=True))
    mean = down @ cells.double() @ across.T
    return mean, f"values are means over blocks of {h / small[0]:.3g}x{w / small[1]:.3g} pixels"


def _area_weights(pixels: int, blocks: int) -> Tensor:
    """Returns (blocks, pixels) float64: the share of each block of a line on each pixel; rows add up to 1.

    Blocks are equally long and need not begin at a pixel: one that two blocks share counts in both by the length of
    its parts, so that the sum of the pixels is that of the blocks times their length.
    """
    start, left = (torch.arange(n, dtype=torch.float64) for n in (blocks, pixels))
    length = pixels / blocks
    start = start[:, None] * length
    overlap = torch.minimum(start + length, left + 1) - torch.maximum(start, left)
    return overlap.clamp(min=0) / length


def _short(value: float) -> float:
    return float(f"{float(value):.{_DIGITS}g}")


def _over(values: Tensor, image: Tensor | None, how: dict[str, Any]) -> NDArray[np.uint8]:
    """Draws a map (H, W) over the grey photo, more opaque where its value is farther from zero."""
    require("matplotlib", extra="report", purpose="drawing a report")
    from matplotlib import colormaps
    from matplotlib.colors import Normalize

    rgba = colormaps[how["cmap"]](Normalize(how["vmin"], how["vmax"])(values.numpy()))[..., :3]
    if image is not None:
        limit = max(abs(how["vmin"]), abs(how["vmax"])) or 1.0
        alpha = 0.85 * (values.abs() / limit).clamp(0, 1).numpy()[..., None] ** 0.8
        grey = image.detach().cpu().float().clamp(0, 1).mean(0).numpy()[..., None]
        rgba = alpha * rgba + (1 - alpha) * (0.25 + 0.75 * grey)
    result: NDArray[np.uint8] = (255 * np.clip(rgba, 0, 1)).round().astype(np.uint8)
    return result


def disc(album: ImageStore, rings: Tensor, edges: Tensor) -> str:
    """Draws influence (2, B, S) as rings, low frequencies in the middle; transparent outside."""
    from matplotlib import colormaps

    from facexai.plots.drawing import DIVERGING
    from facexai.plots.frequency import raster

    values = rings.detach().cpu().double()
    limit = float(values.abs().max()) or 1.0
    picture = raster(values / limit, edges, "log")
    rgba = colormaps[DIVERGING]((np.nan_to_num(picture) + 1) / 2)
    rgba[..., 3] = ~np.isnan(picture)
    return album.add((255 * rgba).round().astype(np.uint8))
