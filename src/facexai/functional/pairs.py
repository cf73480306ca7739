"""Pairs of faces: maps of a cosine, from what each face left behind alone."""

from __future__ import annotations

import torch
from torch import Tensor

from facexai.functional.cam import at_least_float32

_TINY = 1e-8


def unit_gradients(gradients: Tensor) -> Tensor:
    """Computes the magnitudes of the gradients of embedding dimensions, each map scaled to length 1.

    Args:
        gradients: (K, 3, H, W), of K numbers of an embedding by the pixels.

    Returns:
        (K, H, W): absolute values summed over the colours, divided by their Frobenius norm + 1e-8.

    Source: Lu, Xu and Ebrahimi 2024, arXiv:2403.04549, reconstructed.

    >>> unit_gradients(torch.tensor([[[[3.0]], [[-1.0]], [[0.0]]]]))
    tensor([[[1.]]])
    """
    size = at_least_float32(gradients).abs().sum(1)
    scaled: Tensor = size / (size.flatten(1).norm(dim=1)[:, None, None] + _TINY)
    return scaled


def fggb(basis: Tensor, agreement: Tensor, threshold: float | Tensor) -> Tensor:
    """Computes the signed saliency of a pair from one face's gradient maps.

    Args:
        basis: (P, K, H, W), of :func:`unit_gradients`.
        agreement: (P, K), products of the two unit embeddings' numbers; over all K they sum to the cosine.
        threshold: cosine from which a pair is accepted.

    Returns:
        (P, H, W): sum over k of ``basis_k * (agreement_k - threshold / K)``; affine in the threshold.

    Source: as :func:`unit_gradients`; the threshold is spread over the K numbers.

    >>> fggb(torch.ones(1, 2, 1, 1), torch.tensor([[0.5, 0.25]]), 0.5)
    tensor([[[0.2500]]])
    """
    weights = agreement - threshold / agreement.shape[1]
    return torch.einsum("pkhw,pk->phw", basis, weights.to(basis.dtype))


def agreeing(agreement: Tensor, threshold: float) -> Tensor:
    """Returns the dimensions of two unit embeddings that support a match: agreement (P, K) of at least
    ``threshold / K``.

    Source: Huber et al. 2024, WACV, arXiv:2304.13409.
    """
    agree: Tensor = agreement >= threshold / agreement.shape[1]
    return agree


def normalize_vjp(directions: Tensor, features: Tensor) -> Tensor:
    """Returns directions for a unit vector, as directions for the vector before it was divided by its length.

    Args:
        directions: (P, K), gradient of a score by the unit vector.
        features: (P, K), the vector.

    Returns:
        (P, K): ``(v - <f, v> f) / |e|`` with ``f = e / |e|``.

    >>> normalize_vjp(torch.tensor([[1.0, 1.0]]), torch.tensor([[2.0, 0.0]]))
    tensor([[0.0000, 0.5000]])
    """
    length = features.norm(dim=1, keepdim=True).clamp(min=1e-12)
    unit = features / length
    moved: Tensor = (directions - (unit * directions).sum(1, keepdim=True) * unit) / length
    return moved


def ranks(values: Tensor) -> Tensor:
    """Returns ranks 1 to M along the last axis in float64; equal values share their mean rank.

    >>> ranks(torch.tensor([0.1, 0.7, 0.7]))
    tensor([1.0000, 2.5000, 2.5000], dtype=torch.float64)
    """
    flat = values.reshape(-1, values.shape[-1]).contiguous()
    ordered = flat.sort(dim=1).values
    first = torch.searchsorted(ordered, flat, right=False)
    last = torch.searchsorted(ordered, flat, right=True)
    return ((first + last + 1).double() / 2).view(values.shape)


def centred(masks: Tensor) -> tuple[Tensor, Tensor]:
    """Returns masks (M, H, W) minus their mean, (M, H*W), and each pixel's deviation (H*W,): what all scores share."""
    seen = masks.flatten(1)
    seen = seen - seen.mean(0)
    return seen, seen.norm(dim=0)


def zero_if_constant(scores: Tensor) -> Tensor:
    """Returns scores (..., M) with zeros in rows that differ by no more than rounding, so that no rank
    is drawn from noise.
    """
    size = scores.abs().amax(-1, keepdim=True)
    spread = scores.amax(-1, keepdim=True) - scores.amin(-1, keepdim=True)
    kept: Tensor = torch.where(spread > 16 * torch.finfo(scores.dtype).eps * size, scores, 0.0)
    return kept


def correlation_maps(masks: tuple[Tensor, Tensor], scores: Tensor, size: tuple[int, int]) -> Tensor:
    """Computes the correlation over masks of each pixel's visibility with the score.

    Args:
        masks: of :func:`centred`; 1 where a pixel is visible, 0 where it is black.
        scores: (..., M), of the masked images; their ranks for Spearman's correlation with two-valued masks.
        size: (H, W).

    Returns:
        (..., H, W) in [-1, 1], of the masks' type; 0 where a mask or the score never changes.

    Source: Lu et al. 2024, arXiv:2305.08546, reconstructed.

    >>> correlation_maps(centred(torch.tensor([[[1.0]], [[0.0]]])), torch.tensor([0.9, 0.4]), (1, 1))
    tensor([[1.]])
    """
    seen, deviation = masks
    rows = scores.reshape(-1, scores.shape[-1]).double()
    rows = rows - rows.mean(1, keepdim=True)
    length = rows.norm(dim=1, keepdim=True)
    rows = torch.where(length > 1e-12, rows / length.clamp(min=1e-12), 0.0).to(seen.dtype)
    maps = (rows @ seen) / deviation.clamp(min=1e-12)
    maps = torch.where(deviation > 1e-6, maps, 0.0).clamp(-1, 1)
    return maps.view(*scores.shape[:-1], *size)


def correspondences(first: Tensor, second: Tensor) -> Tensor:
    """Returns how much each cell of one face and each cell of the other add to their dot product.

    Args:
        first, second: (P, K, h, w): what each cell adds to the K numbers of the unit embedding.

    Returns:
        (P, h, w, h, w): their sum is the cosine up to what no cell holds.

    Source: Zhu et al. 2021, IEEE TIP 30, for pooled heads; the folding of flattened heads is ours.
    """
    return torch.einsum("pkab,pkcd->pabcd", first, second)
