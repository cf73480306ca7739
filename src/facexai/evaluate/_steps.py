"""Steps that runs about people and about pairs share: embeddings, sums of maps, rows of measurements with controls.

Sums of maps do not depend on the order of the maps, since they are sums of whole numbers, which do not round.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from facexai.evaluate.context import RunContext
from facexai.evaluate.shards import BatchResult, Faces, digests_of, stacked
from facexai.functional import at_least_float32, minmax, upsample

TIES = ": ties"
"""Suffix of a metric's name: the rows of what ties decide in it."""

_UNIT = 2.0**36  # of one; sums of 2**27 maps fit into 64 bits


@final
@dataclass(frozen=True, eq=False)
class Embed:
    """Computes the embedding of every photo.

    Attributes:
        work: the run.
        photos: numbers of the photos, one for each item.
        digests: record the SHA-256 of each photo, too.
    """

    work: RunContext
    photos: Sequence[int]
    digests: bool

    def __call__(self, items: list[int], faces: Faces) -> BatchResult:
        photos, network = [self.photos[item] for item in items], self.work.network
        rows = {"units": network.embed(stacked(faces, photos, network.device)).cpu()}
        return BatchResult(items, rows | ({"sha256": digests_of(faces, photos)} if self.digests else {}))


def summed(cells: Tensor, size: tuple[int, int]) -> Tensor:
    """Returns the sum of maps of several images, each scaled to [0, 1] at the size of the images, at the cells.

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
    """Returns the mean map (H, W), float32, from the sum (h, w) over ``count`` images."""
    return upsample((total.double() / _UNIT / count)[None], size)[0].float()


def rows_with_controls(name: str, measured: Any, controls: Sequence[str]) -> dict[str, Tensor]:
    """Returns the rows (n, maps, ...) of a measurement, and those of its ties.

    The second axis holds the measured map, then the controls in this order; the numbers of a missing control are NaN.
    Ties come as (n, maps, 2), as :meth:`facexai.metrics._ties.Ties.of` takes them.
    """
    parts = [measured, *(measured.controls[control] for control in controls)]

    def stack(values: Callable[[Any], NDArray[np.float64]]) -> Tensor:
        missing = np.full_like(values(measured), np.nan)
        return torch.from_numpy(np.stack([missing if part is None else values(part) for part in parts], 1))

    return {name: stack(lambda part: part.values), f"{name}{TIES}": stack(lambda part: part.ties.values)}
