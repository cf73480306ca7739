"""How a layer's tensor is a map: channels first or last, a row of tokens, or channels of a flattened map."""

from __future__ import annotations

import math
from collections.abc import Collection
from dataclasses import dataclass
from typing import Literal, final

from torch import Tensor

Order = Literal["chw", "hwc", "tokens", "flat"]
Grids = Collection[tuple[int, int]]


@final
@dataclass(frozen=True)
class Layout:
    """Where the channels and the cells of a layer's tensor are.

    Attributes:
        channels: C.
        grid: (h, w) cells.
        order: ``"chw"``; ``"hwc"``; ``"tokens"``, which is (n, C); ``"flat"``, which is (C, h*w).
        extra: tokens that are no cell, such as the class token: how many before the cells, and how many behind.
    """

    channels: int
    grid: tuple[int, int]
    order: Order = "chw"
    extra: tuple[int, int] = (0, 0)

    @property
    def shape(self) -> tuple[int, int, int]:
        """(C, h, w) of the map."""
        return self.channels, *self.grid

    def map(self, tensor: Tensor) -> Tensor:
        """The layer's tensor (N, ...) as a map (N, C, h, w); tokens that are no cell are left out."""
        if self.order == "flat":
            return tensor.reshape(len(tensor), *self.shape)
        if self.order == "tokens":
            start = self.extra[0]
            cells = tensor[:, start : start + self.grid[0] * self.grid[1]]
            tensor = cells.reshape(len(tensor), *self.grid, self.channels)
        return tensor if self.order == "chw" else tensor.permute(0, 3, 1, 2)


def layout_of(shape: tuple[int, ...], image: tuple[int, int], grids: Grids = ()) -> Layout | None:
    """The layout of a layer's tensor, or None where it is no map, or could be read in two ways.

    Args:
        shape: of the tensor, without the batch axis.
        image: (H, W) of the network's input, whose proportions a grid of cells has.
        grids: (h, w) of maps that are known to be in the network, such as those of its convolutions; they decide what
            proportions leave open.

    An extra token is taken to stand before the cells.

    >>> layout_of((512, 7, 7), (112, 112)).order, layout_of((7, 7, 512), (112, 112)).order
    ('chw', 'hwc')
    >>> layout_of((197, 768), (224, 224))
    Layout(channels=768, grid=(14, 14), order='tokens', extra=(1, 0))
    >>> layout_of((49, 256), (112, 112)) is None, layout_of((49, 256), (112, 112), [(7, 7)]).order
    (True, 'tokens')
    >>> layout_of((512,), (112, 112)) is None
    True
    """
    if len(shape) == 3:
        a, b, c = shape
        last, first = (b, c) in grids, (a, b) in grids
        if first == last:
            last, first = _fits(b, c, image), _fits(a, b, image)
        return Layout(c, (a, b), "hwc") if first and not last else Layout(a, (b, c))
    if len(shape) != 2 or 1 in shape:
        return None
    n, c = shape
    for known in (grids, ()) if grids else ((),):
        tokens, flat, more = _grid(n, image, known), _grid(c, image, known), _grid(n - 1, image, known)
        if flat and (tokens or more):
            return None
        if tokens:
            return Layout(c, tokens, "tokens")
        if flat:
            return Layout(n, flat, "flat")
        if more:
            return Layout(c, more, "tokens", (1, 0))
    return None


def _grid(count: int, image: tuple[int, int], grids: Grids) -> tuple[int, int] | None:
    """The grid of that many cells: a known one, or the one with the image's proportions."""
    if grids:
        return next(((h, w) for h, w in sorted(grids) if h * w == count and h * w > 1), None)
    h = math.isqrt(max(count, 0) * image[0] // image[1])
    w = count // max(h, 1)
    return (h, w) if h * w == count and _fits(h, w, image) else None


def _fits(h: int, w: int, image: tuple[int, int]) -> bool:
    return h > 1 and h * image[1] == w * image[0]
