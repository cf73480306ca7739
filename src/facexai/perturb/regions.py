"""Selects pixels: the largest of a map, the same region moved, the centre."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from facexai.perturb._ties import tied_shares, top_pixels, untied
from facexai.perturb.draws import check_items, generator


def top_area(maps: Tensor, area: float, *, seed: int = 0, items: Sequence[int] | None = None) -> Tensor:
    """Returns the pixels with the largest values, exactly ``round(area * H * W)`` of them.

    Args:
        maps: (N, H, W), raw values.
        area: share of the image, 0 to 1.
        seed: of the random fields.
        items: numbers of the images in their data set; the fields depend on them. Default: 0, 1, ...

    Returns:
        (N, H, W), boolean. Among equal values a Gaussian random field of the item decides, and no order of pixels. One
        region is one such draw; metrics are means over many (:func:`facexai.metrics.deletion`).

    Raises:
        ValueError: wrong shape, NaN or infinity, or an area outside 0 to 1.

    >>> top_area(torch.tensor([[[1.0, 3.0], [3.0, 2.0]]]), 0.5)
    tensor([[[False,  True],
             [ True, False]]])
    """
    check_maps(maps)
    check_area(area)
    numbers = check_items(items, len(maps))
    tied = tied_shares(maps, (area,))[:, 0].nonzero()[:, 0].tolist()
    values = maps
    if tied:
        values = maps.to(torch.float64, copy=True)
        values[tied] = untied(maps[tied], [numbers[i] for i in tied], seed=seed)
    return top_pixels(values, area, values)


def check_area(area: float) -> None:
    """Refuses an area that is no share."""
    if not 0 <= area <= 1:
        raise ValueError(f"expected an area from 0 to 1, got {area}")


def check_maps(maps: Tensor) -> None:
    """Refuses what is not a stack of finite maps."""
    if maps.ndim != 3 or len(maps) == 0:
        raise ValueError(f"expected maps (N, H, W), at least one, got shape {tuple(maps.shape)}")
    if not torch.isfinite(maps).all():
        bad = (~torch.isfinite(maps)).flatten(1).any(1).nonzero()[:, 0].tolist()
        raise ValueError(f"expected finite maps, got NaN or infinity in the map of image {bad[:8]}")


def shift_mask(masks: Tensor, *, seed: int = 0, items: Sequence[int] | None = None) -> Tensor:
    """Returns each region at a random place: shifted cyclically, its area unchanged, by at least one pixel.

    Args:
        masks: (N, H, W), boolean.
        seed: of the shifts.
        items: numbers of the images in their data set; the shift depends on them, not on the batch.
    """
    height, width = masks.shape[1:]
    result = []
    for mask, item in zip(masks, check_items(items, len(masks)), strict=True):
        place = int(torch.randint(1, max(2, height * width), (1,), generator=generator(seed, item, "shift")))
        result.append(mask.roll((place // width, place % width), (0, 1)))
    return torch.stack(result)


def centre_prior(size: tuple[int, int]) -> Tensor:
    """Returns a map (H, W) that only says that faces are in the middle: minus the squared distance to the centre."""
    y, x = (torch.linspace(-1, 1, s) for s in size)
    return -(y[:, None] ** 2 + x[None, :] ** 2)
