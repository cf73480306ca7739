"""The layout of a layer's tensor: channels first or last, a row of tokens, or channels of a flattened map."""

from __future__ import annotations

import math
from collections.abc import Collection
from dataclasses import dataclass, field
from typing import Literal, final

import torch
from torch import Tensor

Order = Literal["chw", "hwc", "tokens", "flat", "given"]
Grids = Collection[tuple[int, int]]


@final
@dataclass(frozen=True)
class Layout:
    """The layout of a layer's tensor: where its channels and its spatial locations are.

    Attributes:
        channels: C.
        grid: (h, w) cells.
        order: ``"chw"``; ``"hwc"``; ``"tokens"``, which is (n, C); ``"flat"``, which is (C, h*w); ``"given"``, by
            ``places``.
        extra: rows of the tokens that are no cell, such as those of a class token and of registers.
        batch: the axis of the images in the layer's tensor.
        places: (C*h*w,), which value of an image's tensor each value of its map is, where the order is ``"given"``.
    """

    channels: int
    grid: tuple[int, int]
    order: Order = "chw"
    extra: tuple[int, ...] = ()
    batch: int = 0
    places: Tensor | None = field(default=None, repr=False, compare=False)

    @property
    def shape(self) -> tuple[int, int, int]:
        """Returns (C, h, w) of the map."""
        return self.channels, *self.grid

    def map(self, tensor: Tensor) -> Tensor:
        """Returns the layer's tensor, its images first, (N, ...), as a map (N, C, h, w), without the extra tokens."""
        if self.order == "given":
            assert self.places is not None
            return tensor.flatten(1)[:, self.places.to(tensor.device)].view(len(tensor), *self.shape)
        if self.order == "flat":
            return tensor.reshape(len(tensor), *self.shape)
        if self.order == "tokens":
            if self.extra:
                cells = [row for row in range(tensor.shape[1]) if row not in self.extra]
                tensor = tensor[:, torch.tensor(cells, device=tensor.device)]
            tensor = tensor.reshape(len(tensor), *self.grid, self.channels)
        return tensor if self.order == "chw" else tensor.permute(0, 3, 1, 2)

    def __str__(self) -> str:
        h, w = self.grid
        if self.order != "tokens":
            return f"{h}x{w} cells of {self.channels} channels"
        extras = f" and {len(self.extra)} extra" if self.extra else ""
        return f"{h * w} tokens ({h}x{w}){extras}, {self.channels} numbers each"


def readings(shape: tuple[int, ...], image: tuple[int, int], grids: Grids = ()) -> list[Layout]:
    """Returns every layout that a tensor of this shape can have.

    Args:
        shape: of the tensor, without the batch axis.
        image: (H, W) of the network's input, whose proportions a grid of cells has.
        grids: (h, w) of maps that are certainly in the network, such as those of its convolutions; they decide what
            proportions leave open.

    >>> [str(layout) for layout in readings((50, 64), (112, 112))]
    ['8x8 cells of 50 channels', '49 tokens (7x7) and 1 extra, 64 numbers each']
    """
    if len(shape) == 3:
        a, b, c = shape
        last, first = (b, c) in grids, (a, b) in grids
        if first == last:
            last, first = _fits(b, c, image), _fits(a, b, image)
        return [Layout(c, (a, b), "hwc") if first and not last else Layout(a, (b, c))]
    if len(shape) != 2 or 1 in shape:
        return []
    n, c = shape
    for certain in (grids, ()) if grids else ((),):
        tokens, flat = grid_of(n, image, certain), grid_of(c, image, certain)
        layouts = [Layout(c, tokens, "tokens")] if tokens else []
        layouts += [Layout(n, flat, "flat")] if flat else []
        fewer = None if tokens or grid_of(n, image, ()) else _within(n, image, grids)
        if fewer is not None and fewer != flat:
            layouts.append(Layout(c, fewer, "tokens", tuple(range(n - math.prod(fewer)))))
        if layouts:
            return layouts
    return []


def layout_of(shape: tuple[int, ...], image: tuple[int, int], grids: Grids = ()) -> Layout | None:
    """Returns the layout of a layer's tensor, or None where it is no map, or could be read in two ways.

    Arguments as for :func:`readings`. Extra tokens are taken to precede the cells: where they are, only values show.

    >>> layout_of((512, 7, 7), (112, 112)).order, layout_of((7, 7, 512), (112, 112)).order
    ('chw', 'hwc')
    >>> layout_of((197, 768), (224, 224))
    Layout(channels=768, grid=(14, 14), order='tokens', extra=(0,), batch=0)
    >>> layout_of((261, 1024), (224, 224), [(16, 16)]).extra
    (0, 1, 2, 3, 4)
    >>> layout_of((49, 256), (112, 112)) is None, layout_of((49, 256), (112, 112), [(7, 7)]).order
    (True, 'tokens')
    >>> layout_of((512,), (112, 112)) is None
    True
    """
    layouts = readings(shape, image, grids)
    return layouts[0] if len(layouts) == 1 else None


def _within(count: int, image: tuple[int, int], grids: Grids) -> tuple[int, int] | None:
    """Returns the largest certain grid of fewer cells; without any, the grid of one cell fewer."""
    fewer = [(h, w) for h, w in grids if 1 < h * w < count]
    return max(fewer, key=math.prod) if fewer else None if grids else grid_of(count - 1, image, ())


def grid_of(count: int, image: tuple[int, int], grids: Grids) -> tuple[int, int] | None:
    """Returns the grid of that many cells: a certain one, or, without any, the one with the image's proportions."""
    if grids:
        return next(((h, w) for h, w in sorted(grids) if h * w == count and h * w > 1), None)
    h = math.isqrt(max(count, 0) * image[0] // image[1])
    w = count // max(h, 1)
    return (h, w) if h * w == count and _fits(h, w, image) else None


def _fits(h: int, w: int, image: tuple[int, int]) -> bool:
    return h > 1 and h * image[1] == w * image[0]
