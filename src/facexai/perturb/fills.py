"""Fills that replace removed pixels."""

from __future__ import annotations

import math
from collections.abc import Sequence
from numbers import Real
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from facexai.perturb.draws import check_items, generator

Fill = Literal["black", "mean", "blur", "noise"] | float

_BLUR_SHARE = 0.05  # sigma of the blur in widths of the image


def make_fill(images: Tensor, fill: Fill, *, seed: int = 0, items: Sequence[int] | None = None) -> Tensor:
    """Returns the values that replace removed pixels, for every pixel of every image.

    Args:
        images: (N, 3, H, W) RGB in [0, 1].
        fill: ``"black"``; ``"mean"``: the image's own mean colour; ``"blur"``: the image under a Gaussian of sigma 5 %
            of its width; ``"noise"``: uniform, its own for every item; or a grey value in [0, 1].
        seed: for noise.
        items: numbers of the images in their data set, for noise; default 0, 1, ...

    Returns:
        (N, 3, H, W) in [0, 1].

    Raises:
        ValueError: unknown fill, or a value outside [0, 1].
    """
    if isinstance(fill, Real) and not isinstance(fill, bool):
        if not 0 <= fill <= 1:
            raise ValueError(f"expected a fill value from 0 to 1, got {fill}")
        return torch.full_like(images, float(fill))
    if fill == "black":
        return torch.zeros_like(images)
    if fill == "mean":
        return images.mean((2, 3), keepdim=True).expand_as(images)
    if fill == "blur":
        return blurred(images, _BLUR_SHARE * images.shape[3])
    if fill == "noise":
        drawn = [
            torch.rand(images.shape[1:], generator=generator(seed, i, "fill")) for i in check_items(items, len(images))
        ]
        return torch.stack(drawn).to(images)
    raise ValueError(f"expected fill 'black', 'mean', 'blur', 'noise' or a value from 0 to 1, got {fill!r}")


def blurred(images: Tensor, sigma: float) -> Tensor:
    """Returns images under a Gaussian of that sigma in pixels; the edge is mirrored."""
    return gaussian_blur(images, sigma).clamp(0, 1)


def gaussian_blur(images: Tensor, sigma: float) -> Tensor:
    """Returns maps or images (N, C, H, W) of any values under a Gaussian of that sigma in pixels;
    the edge is mirrored.
    """
    radius = min(math.ceil(3 * sigma), min(images.shape[2:]) - 1)
    x = torch.arange(-radius, radius + 1, dtype=images.dtype, device=images.device)
    kernel = torch.exp(-0.5 * (x / sigma) ** 2)
    kernel = (kernel / kernel.sum()).expand(images.shape[1], 1, -1)
    padded = F.pad(images, (radius,) * 4, mode="reflect")
    rows = F.conv2d(padded, kernel[:, :, None, :], groups=images.shape[1])
    return F.conv2d(rows, kernel[:, :, :, None], groups=images.shape[1])
