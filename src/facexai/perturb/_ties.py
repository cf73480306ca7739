"""Regions of maps with equal values: which share of them ties decide, and the random fields that break ties."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import torch
from torch import Tensor

from facexai.functional import at_least_float32
from facexai.perturb.draws import generator

GROUP = 4
"""Fields of a group: a field, its left-right mirror image, its upside-down mirror image, and both."""

_SIGMA = 0.05  # of a field, in widths of the image
_FLIPS: tuple[tuple[int, ...], ...] = ((), (-1,), (-2,), (-2, -1))


def tie_fields(size: tuple[int, int], number: int, *, seed: int = 0, group: int = 0) -> Tensor:
    """Returns a group of Gaussian random fields, (4, H, W), float64: a field and its three mirror images.

    White noise under a cyclic Gaussian of sigma 5 % of the width, so that every pixel is as likely as any other.

    Args:
        size: (H, W).
        number: of the map in its data set.
        seed: of the fields.
        group: number of the group, from 0.
    """
    noise = torch.randn(size, generator=generator(seed, number, f"ties {group}"), dtype=torch.float64)
    rows, columns = (_cyclic_gaussian(length, _SIGMA * size[1]) for length in size)
    field = rows @ noise @ columns
    return torch.stack([field.flip(dims) for dims in _FLIPS])


@lru_cache(maxsize=16)
def _cyclic_gaussian(length: int, sigma: float) -> Tensor:
    """Returns the matrix (L, L) that smooths a row of pixels cyclically."""
    steps = torch.arange(length, dtype=torch.float64)
    distance = torch.minimum(steps, length - steps)
    kernel = torch.exp(-0.5 * (distance / sigma) ** 2)
    places = (torch.arange(length)[:, None] - torch.arange(length)) % length
    return (kernel / kernel.sum())[places]


def tied_shares(maps: Tensor, areas: Sequence[float]) -> Tensor:
    """Returns for each map and area the share of the region's pixels that ties decide, (N, A), float64.

    With c pixels in the region, of which a have larger values than the smallest value in it, it is (c - a) / c where
    that value occurs outside of the region, too, and 0 where it does not.

    Args:
        maps: (N, H, W).
        areas: shares of the image, 0 to 1.

    >>> tied_shares(torch.tensor([[[4.0, 1.0], [1.0, 1.0]]]), (0.25, 0.5, 1.0))
    tensor([[0.0000, 0.5000, 0.0000]], dtype=torch.float64)
    """
    flat = at_least_float32(maps).flatten(1)
    ordered = flat.sort(dim=1, descending=True).values
    shares = torch.zeros(len(flat), len(areas), dtype=torch.float64)
    for column, area in enumerate(areas):
        count = round(area * flat.shape[1])
        if 0 < count < flat.shape[1]:
            lowest = ordered[:, count - 1]
            missing = count - (ordered > lowest[:, None]).sum(1)
            shares[:, column] = torch.where(ordered[:, count] == lowest, missing.double() / count, 0.0).cpu()
    return shares


def top_pixels(maps: Tensor, area: float, second: Tensor) -> Tensor:
    """Returns the pixels with the largest values, exactly ``round(area * H * W)`` of them; (N, H, W), boolean.

    Args:
        maps: (N, H, W).
        area: share of the image, 0 to 1.
        second: (N, H, W), what decides among equal values, larger ones first.
    """
    flat = at_least_float32(maps).flatten(1)
    count = round(area * flat.shape[1])
    if count == 0:
        return torch.zeros_like(maps, dtype=torch.bool)
    lowest = flat.kthvalue(flat.shape[1] - count + 1, dim=1, keepdim=True).values  # no need to sort all of them
    above, equal = flat > lowest, flat == lowest
    missing = count - above.sum(1, keepdim=True)
    chosen = above | equal
    tied = (equal.sum(1, keepdim=True) > missing).flatten().nonzero()[:, 0]
    if len(tied):
        rest = second.to(maps.device)[tied].flatten(1).masked_fill(~equal[tied], -torch.inf)
        order = rest.argsort(dim=1, descending=True, stable=True)
        first = torch.arange(flat.shape[1], device=flat.device) < missing[tied]
        chosen[tied] = above[tied] | torch.zeros_like(first).scatter(1, order, first)
    return chosen.view_as(maps)


def dense_ranks(first: Tensor, second: Tensor) -> Tensor:
    """Returns maps (N, H, W), float64, in the order of ``first`` and, among its equal values, of ``second``.

    The smallest pixel is 0; pixels are equal only where both maps are.

    >>> dense_ranks(torch.tensor([[[0.0, 5.0, 0.0, 0.0]]]), torch.tensor([[[-1.0, 5.0, -2.0, -1.0]]]))
    tensor([[[1., 2., 0., 1.]]], dtype=torch.float64)
    """
    a, b = (at_least_float32(maps).flatten(1) for maps in (first, second.to(first.device)))
    order = b.argsort(dim=1, stable=True)
    order = order.gather(1, a.gather(1, order).argsort(dim=1, stable=True))
    a, b = a.gather(1, order), b.gather(1, order)
    larger = torch.zeros_like(a, dtype=torch.float64)
    larger[:, 1:] = ((a[:, 1:] != a[:, :-1]) | (b[:, 1:] != b[:, :-1])).double()
    return torch.zeros_like(larger).scatter(1, order, larger.cumsum(1)).view_as(first)


def untied(maps: Tensor, numbers: Sequence[int], *, seed: int = 0) -> Tensor:
    """Returns maps (N, H, W), float64, in the same order of pixels, whose ties a field of each map's own breaks."""
    height, width = maps.shape[1:]
    fields = torch.stack([tie_fields((height, width), number, seed=seed)[0] for number in numbers])
    return dense_ranks(maps, fields)
