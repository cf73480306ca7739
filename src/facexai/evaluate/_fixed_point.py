"""Sums of maps that do not depend on the order: whole numbers do not round."""

from __future__ import annotations

import torch
from torch import Tensor

from facexai.functional import at_least_float32, minmax, upsample

_UNIT = 2.0**36  # of one; sums of 2**27 maps fit into 64 bits


def summed(cells: Tensor, size: tuple[int, int]) -> Tensor:
    """Returns the sum over images of their maps, each scaled to [0, 1] at the size of the images, in cells.

    Scaling by the extremes of the enlarged map commutes with enlarging, which is linear and keeps constants.

    Args:
        cells: (N, h, w), raw.
        size: (H, W) of the images.

    Returns:
        (h, w), int64, in units of 2**-36.

    >>> bool(summed(torch.tensor([[[0.0, 1.0]]]), (1, 2)).equal(torch.tensor([[0, 2**36]])))
    True
    """
    if len(cells) == 0:
        return torch.zeros(cells.shape[1:], dtype=torch.int64)
    maps = upsample(at_least_float32(cells), size)
    flat = (minmax(maps) == 0).flatten(1).all(1)[:, None, None]  # constant, but for rounding of the maps' own type
    low, high = (extreme((-2, -1), keepdim=True).double() for extreme in (maps.amin, maps.amax))
    scaled = torch.where(flat, 0.0, (cells.double() - low) / torch.where(flat, 1.0, high - low))
    return (scaled * _UNIT).round().to(torch.int64).sum(0).cpu()


def mean_of(total: Tensor, count: int, size: tuple[int, int]) -> Tensor:
    """Returns the mean map (H, W), float32, from the sum (h, w) over so many images."""
    return upsample((total.double() / _UNIT / count)[None], size)[0].float()
