"""How a layer's tensor is a map: channels first or last, or a row of tokens."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import final

from torch import Tensor


@final
@dataclass(frozen=True)
class Layout:
    """Where the channels and the cells of a layer's tensor are.

    Attributes:
        channels: C.
        grid: (h, w) cells.
        order: ``"chw"``, ``"hwc"`` or ``"tokens"``, which is (prefix + h*w, C).
        prefix: tokens before those of the cells, such as the class token.
    """

    channels: int
    grid: tuple[int, int]
    order: str = "chw"
    prefix: int = 0

    @property
    def shape(self) -> tuple[int, int, int]:
        """(C, h, w) of the map."""
        return self.channels, *self.grid

    def map(self, tensor: Tensor) -> Tensor:
        """The layer's tensor (N, ...) as a map (N, C, h, w); tokens before the cells are left out."""
        if self.order == "tokens":
            tensor = tensor[:, self.prefix :].reshape(len(tensor), *self.grid, self.channels)
        return tensor if self.order == "chw" else tensor.permute(0, 3, 1, 2)


def layout_of(shape: tuple[int, ...], image: tuple[int, int]) -> Layout | None:
    """The layout of a layer's tensor, or None where it is no map.

    Args:
        shape: of the tensor, without the batch axis.
        image: (H, W) of the network's input; a grid of tokens, and one with channels last, has its proportions.

    Ambiguous shapes are taken channels first, and tokens without a class token.

    >>> layout_of((512, 7, 7), (112, 112)).order, layout_of((7, 7, 512), (112, 112)).order
    ('chw', 'hwc')
    >>> layout_of((197, 768), (224, 224))
    Layout(channels=768, grid=(14, 14), order='tokens', prefix=1)
    >>> layout_of((512,), (112, 112)) is None
    True
    """
    if len(shape) == 3:
        a, b, c = shape
        if _fits(a, b, image) and not _fits(b, c, image):
            return Layout(c, (a, b), "hwc")
        return Layout(a, (b, c))
    if len(shape) != 2 or shape[1] == 1:
        return None
    n, channels = shape
    for prefix in (0, 1):
        h = math.isqrt((n - prefix) * image[0] // image[1])
        w = (n - prefix) // max(h, 1)
        if h * w == n - prefix and h * w > 1 and _fits(h, w, image):
            return Layout(channels, (h, w), "tokens", prefix)
    return None


def _fits(h: int, w: int, image: tuple[int, int]) -> bool:
    return h > 1 and h * image[1] == w * image[0]
