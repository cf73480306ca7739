"""Class activation maps as algebra on activations and gradients, and what every map needs afterwards."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def at_least_float32(x: Tensor) -> Tensor:
    """Returns the tensor in float32, or in float64 if it was that already.

    >>> at_least_float32(torch.zeros(1, dtype=torch.bfloat16)).dtype
    torch.float32
    """
    return x if x.dtype == torch.float64 else x.float()


def hirescam(activations: Tensor, gradients: Tensor) -> Tensor:
    """Computes HiResCAM: the element-wise product of activation and gradient, summed over channels.

    Args:
        activations: (N, C, h, w), the map a layer gave.
        gradients: (N, C, h, w), the derivative of a score with respect to it.

    Returns:
        (N, h, w), signed, in units of the score. Where everything after the layer is affine the cells and the
        constant part add up to the score; elsewhere this is its first-order expansion.

    Source: Draelos and Carin 2020, arXiv:2011.08891, eq. 2; no ReLU.

    >>> A = torch.tensor([[[[1.0, 2.0]], [[3.0, 4.0]]]])
    >>> hirescam(A, torch.ones_like(A))
    tensor([[[4., 6.]]])
    """
    return (at_least_float32(activations) * at_least_float32(gradients)).sum(1)


def gradcam(activations: Tensor, gradients: Tensor) -> Tensor:
    """Computes Grad-CAM before its ReLU: channels weighted by the spatial mean of their gradient.

    Args:
        activations: (N, C, h, w).
        gradients: (N, C, h, w).

    Returns:
        (N, h, w), signed; the published map is its positive part.

    Source: Selvaraju et al. 2017, arXiv:1610.02391, eq. 1 and 2.

    >>> A = torch.tensor([[[[1.0, 2.0]], [[3.0, 4.0]]]])
    >>> gradcam(A, torch.tensor([[[[1.0, 0.0]], [[0.0, 0.0]]]]))
    tensor([[[0.5000, 1.0000]]])
    """
    weights = at_least_float32(gradients).mean((2, 3), keepdim=True)
    return (at_least_float32(activations) * weights).sum(1)


def gradcam_plus_plus(activations: Tensor, gradients: Tensor) -> Tensor:
    """Computes Grad-CAM++ before its ReLU: channels weighted by their positive gradients, each by its
    share in the score.

    Args:
        activations: (N, C, h, w).
        gradients: (N, C, h, w), of a score s with Y = exp(s), so that its higher derivatives are powers of the first.
            Not homogeneous: s scaled by 64 gives another map.

    Returns:
        (N, h, w), signed; the published map is its positive part. With g the gradient, ``alpha = g^2 / (2 g^2 + g^3
        sum(A))``, 0 where g is 0 or the denominator is negative or below 1e-12 of the largest g^2 of the image.

    Source: Chattopadhay et al. 2018, arXiv:1710.11063, eq. 19 and the map's formula; the guard is ours.

    >>> A = torch.tensor([[[[1.0, 2.0]], [[3.0, 4.0]]]])
    >>> gradcam_plus_plus(A, torch.tensor([[[[1.0, -1.0]], [[0.0, 0.0]]]]))
    tensor([[[0.2000, 0.4000]]])
    """
    a, g = at_least_float32(activations), at_least_float32(gradients)
    square = g**2
    denominator = 2 * square + a.sum((2, 3), keepdim=True) * g**3
    smallest = 1e-12 * square.amax((1, 2, 3), keepdim=True)
    usable = (square > 0) & (denominator > smallest)
    alpha = torch.where(usable, square / torch.where(usable, denominator, 1.0), 0.0)
    weights = (alpha * g.clamp(min=0)).sum((2, 3), keepdim=True)
    return (a * weights).sum(1)


def layercam(activations: Tensor, gradients: Tensor) -> Tensor:
    """Computes LayerCAM before its ReLU: activations weighted, location by location, by the positive part
    of their gradient.

    Args:
        activations: (N, C, h, w).
        gradients: (N, C, h, w).

    Returns:
        (N, h, w); the published map is its positive part.

    Source: Jiang et al. 2021, doi 10.1109/TIP.2021.3089943, eq. 5 and 6.

    >>> A = torch.tensor([[[[1.0, 2.0]], [[3.0, 4.0]]]])
    >>> layercam(A, torch.tensor([[[[1.0, -1.0]], [[2.0, 0.0]]]]))
    tensor([[[7., 0.]]])
    """
    return (at_least_float32(activations) * at_least_float32(gradients).clamp(min=0)).sum(1)


def completeness_error(cells: Tensor, constant: Tensor, r: Tensor, e: Tensor) -> Tensor:
    """Returns how far the cells of a folded head are from the score that they explain.

    Args:
        cells: (N, h, w).
        constant: (N,), what the cells leave to the score.
        r: (N, D), the direction explained.
        e: (N, D), the head's output.

    Returns:
        (N,): ``|sum(cells) + constant - <r, e>| / (|r| |e|)``; relative to the lengths, not to the product, which
        passes through zero.

    Source: ours.

    >>> r = torch.tensor([[3.0, 4.0]])
    >>> completeness_error(torch.tensor([[[20.0]]]), torch.tensor([5.0]), r, r)
    tensor([0.])
    """
    error: Tensor = (cells.flatten(1).sum(1) + constant - (r * e).sum(1)).abs()
    lengths = (r.norm(dim=1) * e.norm(dim=1)).clamp(min=torch.finfo(e.dtype).tiny)
    return error.div(lengths)


def minmax(maps: Tensor, magnitude: Tensor | float | None = None) -> Tensor:
    """Returns each map moved and scaled to [0, 1] on its own; a constant map becomes zeros, never NaN.

    Args:
        maps: (..., h, w).
        magnitude: the size of the numbers that the map was computed from; a range that is mere rounding
            of it (16 machine epsilons) counts as constant. Default: the largest absolute value of the map.

    Returns:
        (..., h, w) in [0, 1].

    >>> minmax(torch.tensor([[2.0, 4.0, 3.0]]))
    tensor([[0.0000, 1.0000, 0.5000]])
    >>> minmax(torch.full((1, 3), 7.0))
    tensor([[0., 0., 0.]])
    """
    maps = at_least_float32(maps)
    low, high = maps.amin((-2, -1), keepdim=True), maps.amax((-2, -1), keepdim=True)
    size = torch.maximum(low.abs(), high.abs()) if magnitude is None else torch.as_tensor(magnitude).to(maps)
    constant = (high - low) <= 16 * torch.finfo(maps.dtype).eps * size
    span = torch.where(constant, torch.ones_like(low), high - low)
    return torch.where(constant, torch.zeros_like(maps), (maps - low) / span)


def upsample(cells: Tensor, size: tuple[int, int]) -> Tensor:
    """Returns cells of a map drawn at the size of the image: bilinear, align_corners=False, values kept.

    Args:
        cells: (N, h, w).
        size: (H, W) in pixels.

    Returns:
        (N, H, W) in the units of the cells.

    >>> upsample(torch.ones(1, 2, 2), (4, 4)).shape
    torch.Size([1, 4, 4])
    """
    return F.interpolate(cells[:, None], size=size, mode="bilinear", align_corners=False)[:, 0]


def mass_inside(maps: Tensor, mask: Tensor) -> Tensor:
    """Returns how much of each map's positive part lies inside a region.

    Args:
        maps: (N, H, W), signed or not.
        mask: (H, W) or (N, H, W), boolean, True inside.

    Returns:
        (N,) between 0 and 1; 0 where a map has no positive part.

    Source: ours.

    >>> mass_inside(torch.tensor([[[1.0, 3.0, -5.0]]]), torch.tensor([[True, False, False]]))
    tensor([0.2500])
    """
    if mask.dtype != torch.bool or mask.shape[-2:] != maps.shape[-2:]:
        raise ValueError(
            f"expected a boolean mask of the maps' size {tuple(maps.shape[-2:])}, "
            f"got {mask.dtype} of shape {tuple(mask.shape)}"
        )
    positive = at_least_float32(maps).clamp(min=0)
    total = positive.sum((-2, -1))
    inside = (positive * mask).sum((-2, -1))
    return torch.where(total > 0, inside / total.clamp(min=torch.finfo(total.dtype).tiny), torch.zeros_like(total))
