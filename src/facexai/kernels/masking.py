"""Score-CAM's masked images: an image times each channel's activation, upsampled and scaled to [0, 1]."""

from __future__ import annotations

import importlib.util
from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from facexai.functional import at_least_float32, minmax
from facexai.kernels import masking_triton

Order = Literal["upsample-first", "minmax-first"]
Backend = Literal["auto", "torch", "triton"]

_FLOATS = (torch.float32, torch.bfloat16, torch.float16, torch.float64)
_FORMATS = (None, torch.contiguous_format, torch.channels_last)


class Axis(NamedTuple):
    """One axis of a bilinear enlargement: each pixel is ``(1 - weight) * cells[left] + weight * cells[right]``."""

    left: Tensor
    right: Tensor
    weight: Tensor

    def at(self, pixels: Tensor) -> Axis:
        """Returns the same for some of the pixels."""
        return Axis(self.left[pixels], self.right[pixels], self.weight[pixels])


@torch.no_grad()
def masked_images(
    images: Tensor,
    activations: Tensor,
    channels: Tensor,
    *,
    order: Order = "upsample-first",
    align_corners: bool = False,
    image_index: Tensor | None = None,
    dtype: torch.dtype | None = None,
    memory_format: torch.memory_format | None = None,
    backend: Backend = "auto",
) -> Tensor:
    """Makes one masked image for each pair of an image and a channel: ``minmax(upsample(A[n, k])) * images[n]``.

    Makes one chunk, and never waits for the device: the caller cuts the list of pairs to fit the memory. Beyond the
    result the torch path holds one block of masks (M, 1, H, W), and a second one where it has to change the number
    format; the triton path holds nothing of that size.

    Args:
        images: (N, 3, H, W), floating point: pixels in [0, 1], or the network's own normalised input.
        activations: (N, C, h, w), floating point and finite: the map a layer gave for these images.
        channels: (M,), long, 0 to C - 1. Indices are not checked here, that would wait for the device.
        order: ``"upsample-first"``: the mask's own extremes become 0 and 1; ``"minmax-first"``: those of the cells.
        align_corners: of the bilinear enlargement.
        image_index: (M,), long, 0 to N - 1, the image of each pair; may be left out with one image.
        dtype: of the result, default that of the images. Masks are made in float32 or better.
        memory_format: ``torch.contiguous_format`` (default) or ``torch.channels_last``.
        backend: ``"auto"``: triton for tensors on a GPU where it is installed, else torch; or ``"torch"``,
            ``"triton"``.

    Returns:
        (M, 3, H, W), no gradient. A constant channel (16 machine epsilons) gives zeros, never NaN.

    Raises:
        ValueError: shapes, number formats or devices that do not fit, or an unknown option.
        ImportError: ``backend="triton"`` without the package.

    Source: Wang et al. 2020, arXiv:1910.01279; order and align_corners name what published codes differ in.

    >>> A = torch.tensor([[[[0.0, 2.0], [4.0, 8.0]], [[3.0, 3.0], [3.0, 3.0]]]])
    >>> masked_images(torch.ones(1, 3, 2, 2), A, torch.tensor([0, 1]))[:, 0]
    tensor([[[0.0000, 0.2500],
             [0.5000, 1.0000]],
            [[0.0000, 0.0000],
             [0.0000, 0.0000]]])
    """
    _check(images, activations, channels, image_index)
    _check_options(order, dtype, memory_format, backend)
    index = torch.zeros_like(channels) if image_index is None else image_index
    result = torch.empty(
        (len(channels), *images.shape[1:]),
        dtype=dtype or images.dtype,
        device=images.device,
        memory_format=memory_format or torch.contiguous_format,
    )
    cells = at_least_float32(activations[index, channels])
    if result.numel() == 0:
        return result
    if _use_triton(backend, images.device):
        size = (images.shape[2], images.shape[3])
        low, high = _limits(cells, size, order, align_corners)
        rows, columns = _axes(cells, size, align_corners)
        return masking_triton.fill(result, images, index, cells, (low, _span(low, high)), (*rows, *columns))
    return _multiply(result, images, index, _masks(cells[:, None], result.shape[2:], order, align_corners))


@torch.no_grad()
def constant_channels(
    activations: Tensor, size: tuple[int, int], *, order: Order = "upsample-first", align_corners: bool = False
) -> Tensor:
    """Returns the channels whose mask would be nothing but zeros: their map is constant, up to 16 machine epsilons.

    Args:
        activations: (N, C, h, w), floating point and finite.
        size: (H, W) of the images.
        order: as for `masked_images`; ``"minmax-first"`` uses the cells.
        align_corners: of the bilinear enlargement.

    Returns:
        (N, C), boolean.

    Raises:
        ValueError: wrong shape or number format, or an unknown option.

    >>> constant_channels(torch.tensor([[[[1.0, 2.0]], [[7.0, 7.0]]]]), (4, 4))
    tensor([[False,  True]])
    """
    _check_maps(activations, size)
    _check_options(order)
    if order == "upsample-first":
        return _constant(*extrema(activations, size, align_corners))
    return _constant(*_limits(at_least_float32(activations), size, order, align_corners))


@torch.no_grad()
def extrema(activations: Tensor, size: tuple[int, int], align_corners: bool = False) -> tuple[Tensor, Tensor]:
    """Computes the smallest and largest value of each map after bilinear upsampling, without upsampling it.

    Between four neighbouring cells the enlarged map is bilinear, so on the pixels there its extremes lie on the four
    outermost ones. Only these are computed (see `lattice`), in the arithmetic of ``F.interpolate``. The extremes of
    the cells are something else: with align_corners=False few pixels, or none, lie on a cell's centre.

    Args:
        activations: (N, C, h, w), floating point and finite.
        size: (H, W) in pixels.
        align_corners: of the bilinear enlargement.

    Returns:
        low and high, (N, C) each, float32 or better: those of ``F.interpolate(activations, size)`` up to rounding.

    Raises:
        ValueError: wrong shape or number format.

    Source: ours.

    >>> low, high = extrema(torch.tensor([[[[0.0, 8.0, 0.0]]]]), (1, 6))
    >>> low, high
    (tensor([[0.]]), tensor([[6.]]))
    """
    _check_maps(activations, size)
    # Image by image: the values on the lattice take many times the memory of the cells.
    found = [_extrema(at_least_float32(maps), size, align_corners) for maps in activations]
    return torch.stack([low for low, _ in found]), torch.stack([high for _, high in found])


def lattice(size_in: int, size_out: int, align_corners: bool = False) -> Tensor:
    """Returns the pixels of one axis among which every enlarged map has its extremes.

    These are, for each cell, the first and the last of the pixels that lie between its centre and the next one's.
    With align_corners=False the pixels before the first centre count as lying on it, and those after the last are
    all the same. Where this saves nothing, as always when there are fewer pixels than cells, it is every pixel.

    Args:
        size_in: cells along the axis.
        size_out: pixels along the axis.
        align_corners: of the bilinear enlargement.

    Returns:
        (L,), long, increasing.

    Raises:
        ValueError: a size below 1.

    Source: ours.

    >>> lattice(3, 12)
    tensor([ 0,  5,  6,  9, 10, 11])
    >>> len(lattice(7, 112)), len(lattice(14, 112, align_corners=True))
    (14, 27)
    """
    if min(size_in, size_out) < 1:
        raise ValueError(f"expected sizes of at least 1, got {size_in} cells and {size_out} pixels")
    axis = _axis(size_in, size_out, align_corners, torch.zeros(0))
    return _corners(axis.left, size_in, size_out).unique()  # type: ignore[no-any-return,no-untyped-call]


def _axis(size_in: int, size_out: int, align_corners: bool, like: Tensor) -> Axis:
    """Returns where each pixel lies among the cells, rounded as F.interpolate does; made on the
    device, without waiting.
    """

    def number(x: float) -> Tensor:
        return torch.full((), x, dtype=like.dtype, device=like.device)

    pixels = torch.arange(size_out, dtype=like.dtype, device=like.device)
    if align_corners:
        place = pixels * (number(size_in - 1) / number(max(size_out - 1, 1)))
    else:
        place = torch.addcmul(number(-0.5), pixels + 0.5, number(size_in) / number(size_out)).clamp_(min=0)
    left = place.long().clamp_(max=size_in - 1)
    return Axis(left, (left + 1).clamp_(max=size_in - 1), place - left)


def _axes(cells: Tensor, size: tuple[int, int], align_corners: bool) -> tuple[Axis, Axis]:
    rows, columns = zip(cells.shape[-2:], size, strict=True)
    return _axis(*rows, align_corners, cells), _axis(*columns, align_corners, cells)


def _corners(left: Tensor, size_in: int, size_out: int) -> Tensor:
    """Returns the first and last pixel after each cell. Some repeat: dropping repeats would wait for their number."""
    if 2 * size_in >= size_out:
        return torch.arange(size_out, device=left.device)
    cells = torch.arange(size_in, device=left.device)
    first, after = torch.searchsorted(left, cells), torch.searchsorted(left, cells, right=True)
    # A cell that no pixel follows gets its neighbours' pixels: harmless.
    return torch.cat([first, after - 1]).clamp_(0, size_out - 1)


def _extrema(cells: Tensor, size: tuple[int, int], align_corners: bool) -> tuple[Tensor, Tensor]:
    """Computes the extrema of maps (..., h, w)."""
    pairs = zip(_axes(cells, size, align_corners), cells.shape[-2:], size, strict=True)
    rows, columns = (axis.at(_corners(axis.left, *lengths)) for axis, *lengths in pairs)
    # addcmul rounds once, as F.interpolate does; two roundings would miss its extremes by an epsilon.
    left, right = cells.index_select(-1, columns.left), cells.index_select(-1, columns.right)
    cells = torch.addcmul(right * columns.weight, left, 1 - columns.weight)
    top, bottom = cells.index_select(-2, rows.left), cells.index_select(-2, rows.right)
    cells = torch.addcmul(bottom * rows.weight[:, None], top, (1 - rows.weight)[:, None])
    return cells.amin((-2, -1)), cells.amax((-2, -1))


def _limits(cells: Tensor, size: tuple[int, int], order: Order, align_corners: bool) -> tuple[Tensor, Tensor]:
    """Returns the values that become 0 and 1, for maps (..., h, w)."""
    if order == "minmax-first":
        return cells.amin((-2, -1)), cells.amax((-2, -1))
    return _extrema(cells, size, align_corners)


def _constant(low: Tensor, high: Tensor) -> Tensor:
    """Returns the rule of `functional.minmax`."""
    return (high - low) <= 16 * torch.finfo(low.dtype).eps * torch.maximum(low.abs(), high.abs())


def _span(low: Tensor, high: Tensor) -> Tensor:
    """Returns the divisor of a map; infinity turns a constant map into zeros."""
    return (high - low).masked_fill_(_constant(low, high), torch.inf)


def _masks(cells: Tensor, size: torch.Size, order: Order, align_corners: bool) -> Tensor:
    """Upsamples and scales maps (M, 1, h, w) to (M, 1, H, W) in [0, 1], by the formula: on a CPU the
    lattice gains nothing.
    """
    if order == "minmax-first":
        cells = minmax(cells)
    masks = F.interpolate(cells, size=tuple(size), mode="bilinear", align_corners=align_corners)
    if order == "minmax-first":
        return masks
    low, high = masks.amin((2, 3), keepdim=True), masks.amax((2, 3), keepdim=True)
    return masks.sub_(low).div_(_span(low, high))


def _multiply(result: Tensor, images: Tensor, index: Tensor, masks: Tensor) -> Tensor:
    """Returns images times masks, into the result."""
    if not images.dtype == masks.dtype == result.dtype:
        # One colour at a time: torch would make a second result to convert. Only the product is rounded.
        better = torch.promote_types(images.dtype, masks.dtype)
        for c in range(result.shape[1]):
            result[:, c] = images[:, c].to(better).index_select(0, index).mul_(masks[:, 0])
    elif len(images) == 1:
        torch.mul(images, masks, out=result)
    else:
        torch.index_select(images, 0, index, out=result).mul_(masks)
    return result


def _use_triton(backend: Backend, device: torch.device) -> bool:
    if backend == "auto":
        return device.type == "cuda" and importlib.util.find_spec("triton") is not None
    if backend == "triton" and device.type != "cuda" and not masking_triton.interpreted():
        raise ValueError(
            f"backend='triton' expects tensors on a GPU, got them on {device}: move them, or take backend='auto'"
        )
    return backend == "triton"


def _check(images: Tensor, activations: Tensor, channels: Tensor, image_index: Tensor | None) -> None:
    if images.ndim != 4 or images.shape[1] != 3 or images.dtype not in _FLOATS:
        raise ValueError(
            f"expected images (N, 3, H, W), floating point, got {images.dtype} of shape {tuple(images.shape)}"
        )
    _check_maps(activations, (images.shape[2], images.shape[3]))
    if len(images) != len(activations):
        raise ValueError(f"expected activations of the same {len(images)} images, got them of {len(activations)}")
    if image_index is None and len(images) != 1:
        raise ValueError(f"expected one image, got {len(images)}: say by image_index=(M,) which image each mask is for")
    indices = {"channels": channels} if image_index is None else {"channels": channels, "image_index": image_index}
    for name, index in indices.items():
        if index.ndim != 1 or index.dtype != torch.long:
            raise ValueError(f"expected {name} (M,), long, got {index.dtype} of shape {tuple(index.shape)}")
        if len(index) != len(channels):
            raise ValueError(f"expected an image_index for each of the {len(channels)} channels, got {len(index)}")
    for name, tensor in {"activations": activations, **indices}.items():
        if tensor.device != images.device:
            raise ValueError(f"expected {name} on the images' device {images.device}, got them on {tensor.device}")


def _check_maps(activations: Tensor, size: tuple[int, int]) -> None:
    if activations.ndim != 4 or min(activations.shape) < 1 or activations.dtype not in _FLOATS:
        raise ValueError(
            "expected activations (N, C, h, w), floating point, none of the sizes 0, "
            f"got {activations.dtype} of shape {tuple(activations.shape)}"
        )
    if len(size) != 2 or min(size) < 1:
        raise ValueError(f"expected a size (H, W) of at least one pixel, got {tuple(size)}")


def _check_options(
    order: str,
    dtype: torch.dtype | None = None,
    memory_format: torch.memory_format | None = None,
    backend: str = "auto",
) -> None:
    for name, value, options in (
        ("order", order, ("upsample-first", "minmax-first")),
        ("dtype", dtype, (None, *_FLOATS)),
        ("memory_format", memory_format, _FORMATS),
        ("backend", backend, ("auto", "torch", "triton")),
    ):
        if value not in options:
            raise ValueError(f"expected {name} one of {options}, got {value!r}")
