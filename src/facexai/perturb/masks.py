"""Random masks for methods that run a network on partly occluded images."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from facexai.perturb.draws import generator


def black_patches(count: int, size: tuple[int, int], *, squares: int = 3, seed: int = 0) -> Tensor:
    """Returns masks that hide squares at random places.

    Args:
        count: M masks.
        size: (H, W).
        squares: in each mask; their side is 30 px at a height of 112 px. They may overlap, and lie inside of the image.
        seed: of the places; a mask does not depend on how many follow it.

    Returns:
        (M, H, W), float32: 0 in the squares, 1 elsewhere.

    >>> black_patches(2, (112, 112))[0].sum() >= 112 * 112 - 3 * 900
    tensor(True)
    """
    height, width = size
    side = max(1, min(round(30 / 112 * height), height, width))
    drawn = torch.rand(count, squares, 2, generator=generator(seed, 0, "patches"))
    top = (drawn[..., 0] * (height - side + 1)).long()
    left = (drawn[..., 1] * (width - side + 1)).long()
    y, x = torch.arange(height), torch.arange(width)
    inside_y = (y >= top[..., None]) & (y < top[..., None] + side)
    inside_x = (x >= left[..., None]) & (x < left[..., None] + side)
    return (~(inside_y[..., :, None] & inside_x[..., None, :]).any(1)).float()


def grid_masks(count: int, size: tuple[int, int], *, cells: int, keep: float, seed: int = 0) -> Tensor:
    """Returns masks of random cells, enlarged smoothly and shifted by part of a cell.

    Args:
        count: M masks.
        size: (H, W).
        cells: per side.
        keep: probability with which a cell is visible.
        seed: of cells and shifts.

    Returns:
        (M, H, W), float32 in [0, 1], 1 where pixels are visible.

    Source: Petsiuk, Das and Saenko 2018, arXiv:1806.07421, sec. 3.2.
    """
    height, width = size
    step = (math.ceil(height / cells), math.ceil(width / cells))
    drawn = generator(seed, 0, "grid")
    visible = (torch.rand(count, 1, cells, cells, generator=drawn) < keep).float()
    large = F.interpolate(visible, ((cells + 1) * step[0], (cells + 1) * step[1]), mode="bilinear")[:, 0]
    shifts = (torch.rand(count, 2, generator=drawn) * torch.tensor(step)).long().tolist()
    return torch.stack([mask[y : y + height, x : x + width] for mask, (y, x) in zip(large, shifts, strict=True)])
