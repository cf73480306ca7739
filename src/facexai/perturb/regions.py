"""Which pixels: the largest of a map, the same region elsewhere, the middle."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from facexai.functional import at_least_float32
from facexai.perturb.draws import generator, numbered


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
    flat = at_least_float32(maps).flatten(1)
    count = round(area * flat.shape[1])
    if count == 0:
        return torch.zeros_like(maps, dtype=torch.bool)
    lowest = flat.kthvalue(flat.shape[1] - count + 1, dim=1, keepdim=True).values  # no need to sort all of them
    above, equal = flat > lowest, flat == lowest
    missing = count - above.sum(1, keepdim=True)
    return (above | (equal & (equal.cumsum(1) <= missing))).view_as(maps)


def check_maps(maps: Tensor) -> None:
    """Refuse what is not a stack of finite maps."""
    if maps.ndim != 3 or len(maps) == 0:
        raise ValueError(f"expected maps (N, H, W), at least one, got shape {tuple(maps.shape)}")
    if not torch.isfinite(maps).all():
        bad = (~torch.isfinite(maps)).flatten(1).any(1).nonzero()[:, 0].tolist()
        raise ValueError(f"expected finite maps, got NaN or infinity in the map of image {bad[:8]}")


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
