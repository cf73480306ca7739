"""Changing images by a map: which pixels, and what stands in their place."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from numbers import Real
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

Fill = Literal["black", "mean", "blur", "noise"] | float

_BLUR_SHARE = 0.05  # sigma of the blur in widths of the image


def top_area(maps: Tensor, area: float) -> Tensor:
    """The pixels with the largest values, exactly ``round(area * H * W)`` of them.

    Args:
        maps: (N, H, W), raw values.
        area: share of the image, 0 to 1.

    Returns:
        (N, H, W), boolean. Among equal values the pixel that comes first, row by row, is taken first.

    Raises:
        ValueError: wrong shape, NaN or infinity, or an area outside 0 to 1.

    >>> top_area(torch.tensor([[[1.0, 3.0], [3.0, 2.0]]]), 0.5)
    tensor([[[False,  True],
             [ True, False]]])
    """
    check_maps(maps)
    if not 0 <= area <= 1:
        raise ValueError(f"expected an area from 0 to 1, got {area}")
    flat = maps.flatten(1)
    count = round(area * flat.shape[1])
    chosen = flat.sort(dim=1, descending=True, stable=True).indices[:, :count]
    return torch.zeros_like(flat, dtype=torch.bool).scatter_(1, chosen, True).view_as(maps)


def check_maps(maps: Tensor) -> None:
    """Refuse what is not a stack of finite maps."""
    if maps.ndim != 3 or len(maps) == 0:
        raise ValueError(f"expected maps (N, H, W), at least one, got shape {tuple(maps.shape)}")
    if not torch.isfinite(maps).all():
        bad = (~torch.isfinite(maps)).flatten(1).any(1).nonzero()[:, 0].tolist()
        raise ValueError(f"expected finite maps, got NaN or infinity in the map of image {bad[:8]}")


def generator(seed: int, item: int, purpose: str) -> torch.Generator:
    """Randomness that depends on the seed, the item and the purpose, not on the batch or the order."""
    digest = hashlib.sha256(f"{seed}|{item}|{purpose}".encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:8], "big") >> 1)


def filling(images: Tensor, fill: Fill, *, seed: int = 0, items: Sequence[int] | None = None) -> Tensor:
    """What stands in place of removed pixels, for every pixel of every image.

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
            torch.rand(images.shape[1:], generator=generator(seed, i, "fill")) for i in numbered(items, len(images))
        ]
        return torch.stack(drawn).to(images)
    raise ValueError(f"expected fill 'black', 'mean', 'blur', 'noise' or a value from 0 to 1, got {fill!r}")


def numbered(items: Sequence[int] | None, n: int) -> Sequence[int]:
    """The items, or 0 to n - 1; one for each image."""
    items = range(n) if items is None else items
    if len(items) != n:
        raise ValueError(f"expected one item number for each of the {n} images, got {len(items)}")
    return items


def blurred(images: Tensor, sigma: float) -> Tensor:
    """Images under a Gaussian of that sigma in pixels; the edge is mirrored."""
    radius = min(math.ceil(3 * sigma), min(images.shape[2:]) - 1)
    x = torch.arange(-radius, radius + 1, dtype=images.dtype, device=images.device)
    kernel = torch.exp(-0.5 * (x / sigma) ** 2)
    kernel = (kernel / kernel.sum()).expand(images.shape[1], 1, -1)
    padded = F.pad(images, (radius,) * 4, mode="reflect")
    rows = F.conv2d(padded, kernel[:, :, None, :], groups=images.shape[1])
    return F.conv2d(rows, kernel[:, :, :, None], groups=images.shape[1]).clamp(0, 1)


def moved(masks: Tensor, *, seed: int = 0, items: Sequence[int] | None = None) -> Tensor:
    """Each region at a random place: shifted cyclically, its area unchanged, by at least one pixel.

    Args:
        masks: (N, H, W), boolean.
        seed: of the shifts.
        items: numbers of the images in their data set; the shift depends on them, not on the batch.
    """
    height, width = masks.shape[1:]
    result = []
    for mask, item in zip(masks, numbered(items, len(masks)), strict=True):
        place = int(torch.randint(1, max(2, height * width), (1,), generator=generator(seed, item, "shift")))
        result.append(mask.roll((place // width, place % width), (0, 1)))
    return torch.stack(result)


def centre_prior(size: tuple[int, int]) -> Tensor:
    """A map (H, W) that knows nothing but that faces are in the middle: minus the squared distance to the centre."""
    y, x = (torch.linspace(-1, 1, s) for s in size)
    return -(y[:, None] ** 2 + x[None, :] ** 2)
