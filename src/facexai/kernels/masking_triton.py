"""The same masked images in one pass on a GPU: no mask is ever stored."""

from __future__ import annotations

import functools
import os
from typing import Any

import torch
from torch import Tensor

from facexai._errors import require

tl: Any = None
"""``triton.language``, loaded with the kernel: triton resolves it as a name of this module."""

_ROWS, _COLUMNS = 16, 64  # of one block: a face of 112 pixels wastes 1/8 of its second block


def interpreted() -> bool:
    """Returns whether triton runs its kernels in numpy, on the CPU: what a test sets before triton
    is first imported.
    """
    return os.environ.get("TRITON_INTERPRET") == "1"


def fill(
    result: Tensor,
    images: Tensor,
    image_index: Tensor,
    cells: Tensor,
    limits: tuple[Tensor, Tensor],
    axes: tuple[Tensor, ...],
) -> Tensor:
    """Writes the masked images.

    Args:
        result: (M, 3, H, W), M >= 1, of any floating format and any strides.
        images: (N, 3, H, W), of any strides.
        image_index: (M,), the image of each mask.
        cells: (M, h, w), the map of each mask, float32 or float64.
        limits: (M,) each: what becomes 0, and the distance from there to what becomes 1, infinite for a zero mask.
        axes: for the rows, then for the columns: cell before, cell after, and weight of the latter, for each pixel.

    Returns:
        The result.

    Raises:
        ImportError: triton is not installed.
    """
    kernel = _kernel()
    height, width = result.shape[2:]
    grid = (len(result), -(-height // _ROWS), -(-width // _COLUMNS))
    axes = tuple(a.contiguous() for a in axes)
    # Triton launches on the current device, whatever the tensors say.
    with torch.cuda.device_of(result):  # type: ignore[no-untyped-call]
        kernel[grid](
            *(result, images, image_index.contiguous(), cells.contiguous(), *(x.contiguous() for x in limits), *axes),
            *(height, width, cells.shape[1] * cells.shape[2], cells.shape[2]),
            *result.stride(),
            *images.stride(),
            ROWS=_ROWS,
            COLUMNS=_COLUMNS,
        )
    return result


@functools.cache
def _kernel() -> Any:
    global tl
    triton = require("triton", extra="triton", purpose="backend='triton'")
    tl = require("triton.language", extra="triton", purpose="backend='triton'")
    return triton.jit(_masked)


def _masked(  # type: ignore[no-untyped-def]
    result, images, image_index, cells, lows, spans,
    tops, bottoms, row_weights, lefts, rights, column_weights,
    height, width, map_cells, map_width,
    result_n, result_c, result_y, result_x, image_n, image_c, image_y, image_x,
    ROWS: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    """Computes one block of pixels of one masked image; its number is 64-bit, for results beyond 2**31 elements."""
    m = tl.program_id(0).to(tl.int64)
    y = tl.program_id(1) * ROWS + tl.arange(0, ROWS)
    x = tl.program_id(2) * COLUMNS + tl.arange(0, COLUMNS)
    top = tl.load(tops + y, mask=y < height, other=0)[:, None] * map_width
    bottom = tl.load(bottoms + y, mask=y < height, other=0)[:, None] * map_width
    down = tl.load(row_weights + y, mask=y < height, other=0)[:, None]
    left = tl.load(lefts + x, mask=x < width, other=0)[None, :]
    right = tl.load(rights + x, mask=x < width, other=0)[None, :]
    across = tl.load(column_weights + x, mask=x < width, other=0)[None, :]
    # The low value goes first: differences of near numbers are exact, so the rounding is that of the mask.
    cells += m * map_cells
    low, span = tl.load(lows + m), tl.load(spans + m)
    upper = (tl.load(cells + top + left) - low) * (1 - across) + (tl.load(cells + top + right) - low) * across
    lower = (tl.load(cells + bottom + left) - low) * (1 - across) + (tl.load(cells + bottom + right) - low) * across
    mask = (upper * (1 - down) + lower * down) / span
    mask = tl.where(mask < 0, 0.0, tl.where(mask > 1, 1.0, mask))
    mask = tl.where(span < float("inf"), mask, 0.0)

    y, x = y[:, None], x[None, :]
    inside = (y < height) & (x < width)
    images += tl.load(image_index + m) * image_n + y * image_y + x * image_x
    result += m * result_n + y * result_y + x * result_x
    for c in tl.static_range(3):
        pixels = tl.load(images + c * image_c, mask=inside, other=0.0)
        tl.store(result + c * result_c, (pixels * mask).to(result.dtype.element_ty), mask=inside)
