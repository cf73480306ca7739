"""Frequencies: an image as a sum of bands, the component of each band, and the change of a score without it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, final

import torch
from torch import Tensor

from facexai.functional.cam import at_least_float32
from facexai.functional.pairs import ranks

Limit = Literal["corner", "circle"]

_MOST = 10_000  # bands, and sectors


@final
@dataclass(frozen=True, eq=False)
class Bands:
    """Rings of frequencies, which may be cut into sectors by orientation: every coefficient is in one cell or in none.

    Attributes:
        size: (H, W) of the images.
        edges: (B + 1,) cycles per width of the image.
        sectors: S orientations of each ring.
        cells: (H, W // 2 + 1), for every coefficient of the real transform the cell ``band * S + sector``; -1 for those
            that belong to no band.
    """

    size: tuple[int, int]
    edges: Tensor
    sectors: int
    cells: Tensor

    @property
    def count(self) -> int:
        """Returns B, the number of rings."""
        return len(self.edges) - 1

    @property
    def weights(self) -> Tensor:
        """Returns (H, W // 2 + 1) the number of coefficients of the whole transform that each of the half
        represents: 1 or 2.
        """
        result = torch.full(self.cells.shape, 2.0, dtype=torch.float64)
        result[:, 0] = 1.0
        if self.size[1] % 2 == 0:
            result[:, -1] = 1.0
        return result

    @property
    def coefficients(self) -> Tensor:
        """Returns (B * S,) number of coefficients of the whole transform in every cell."""
        return _summed(self.weights[None], self)[0].round().long()


def bands(
    size: tuple[int, int],
    width: float = 1.0,
    limit: Limit = "corner",
    *,
    sectors: int = 1,
    keep_dc: bool = False,
) -> Bands:
    """Returns rings of frequencies of images of one size.

    The radius of a coefficient is its frequency in cycles per *width* of the image, in every direction: in an image
    that is not square, vertical cycles per height count ``W / H`` times. A ring holds the radii from ``k * width`` up
    to, but not including, ``(k + 1) * width``.

    Args:
        size: (H, W) in pixels.
        width: of a ring, in cycles per width of the image.
        limit: ``"corner"``: all coefficients, 80 rings at 112 px; ``"circle"``: only radii below half the
            sampling rate, as finer ones exist in diagonal directions alone; the others belong to no band.
        sectors: orientations that every ring is cut into: the first is centred at 0, waves from left to right, then
            by ``180 / sectors`` degrees, mirrored on the vertical axis. Coefficients at half the sampling rate count as
            if both their frequencies were positive; the mean has no orientation and is in the first sector.
        keep_dc: the mean of the image belongs to no band.

    Returns:
        The bands; some cells may hold no coefficient.

    Raises:
        ValueError: a size below 2, a width that is not positive or leaves no band, less than one sector.

    Source: rings around the middle of the shifted transform: Huber et al. 2025, WACV, arXiv:2407.11941; width, limit
    and real transform reconstructed; sectors, and images that are not square, ours.

    >>> bands((112, 112)).count, bands((150, 150)).count, bands((112, 112), limit="circle").count
    (80, 107, 56)
    """
    height, columns = size
    if min(size) < 2:
        raise ValueError(f"expected images of at least 2x2 pixels, got {height}x{columns}")
    if not (isinstance(width, int | float) and width is not True and math.isfinite(width) and width > 0):
        raise ValueError(f"expected a positive width of the bands in cycles per image, got {width!r}")
    if max(size) / width > _MOST:
        raise ValueError(
            f"bands of {width:g} cycles are more than {_MOST} in an image of {height}x{columns}; take wider ones"
        )
    if limit not in ("corner", "circle"):
        raise ValueError(f"expected limit 'corner' or 'circle', got {limit!r}")
    if not isinstance(sectors, int) or not 1 <= sectors <= _MOST:
        raise ValueError(f"expected at least one sector, and at most {_MOST}, got {sectors!r}")
    rows = torch.fft.fftfreq(height, 1 / height, dtype=torch.float64) * (columns / height)
    if height % 2 == 0:
        rows[height // 2].abs_()  # half the sampling rate has no sign
    across = torch.arange(columns // 2 + 1, dtype=torch.float64)
    radius = torch.hypot(rows[:, None], across[None]).round(decimals=9)  # equal radii in equal rings
    ring = torch.floor((radius / width).round(decimals=9)).long()
    highest = columns / 2  # half the sampling rate, also vertically
    if limit == "circle":
        ring = torch.where(radius < highest, ring, -1)
    count = int(ring.max()) + 1
    edges = torch.arange(count + 1, dtype=torch.float64) * width
    if limit == "circle":
        edges[-1] = min(float(edges[-1]), highest)
    heights = rows[:, None].repeat(1, len(across))
    heights[:, 0].abs_()  # these two columns hold every frequency twice, up and down: one direction
    if columns % 2 == 0:
        heights[:, -1].abs_()
    angle = torch.atan2(heights, across[None].expand_as(heights))
    sector = torch.floor(angle * (sectors / math.pi) + 0.5).long() % sectors
    cells = torch.where(ring >= 0, ring * sectors + sector, -1)
    if keep_dc:
        cells[0, 0] = -1
    if int(cells.max()) < 0:
        raise ValueError(f"no coefficient of a {height}x{columns} image is in a band; take wider bands")
    return Bands((height, columns), edges, sectors, cells)


def spectra(images: Tensor) -> Tensor:
    """Returns (N, 3, H, W // 2 + 1), the real transform of images, in float32 or better."""
    return _transform(at_least_float32(images))


def _transform(images: Tensor) -> Tensor:
    """Returns the real transform; of views with repeated values, such as grey as three colours, MKL has
    none in torch 2.6.
    """
    result: Tensor = torch.fft.rfft2(images.contiguous())
    return result


def band_component(spectra: Tensor, layout: Bands, cells: Tensor) -> Tensor:
    """Returns the component of the images in each frequency band.

    Args:
        spectra: (M, 3, H, W // 2 + 1), real transforms (``torch.fft.rfft2``).
        layout: of these images.
        cells: (M,).

    Returns:
        (M, 3, H, W). Over all cells they sum to the image, where none belongs to no band.
    """
    chosen = layout.cells.to(spectra.device)[None] == cells[:, None, None].to(spectra.device)
    result: Tensor = torch.fft.irfft2(spectra * chosen[:, None], s=layout.size)
    return result


def energies(images: Tensor, layout: Bands) -> Tensor:
    """Returns the mean squared pixel value that every cell of frequencies holds.

    Args:
        images: (N, C, H, W).
        layout: of these images.

    Returns:
        (N, B * S) float64, mean over pixels and colours. If every coefficient has a cell, they sum to the mean squared
        pixel value (Parseval).

    >>> energies(torch.full((1, 3, 4, 4), 0.5), bands((4, 4)))[0]
    tensor([0.2500, 0.0000, 0.0000], dtype=torch.float64)
    """
    spectra = _transform(images.double())
    result: Tensor = _parseval(spectra, spectra, layout) / images[0].numel()
    return result


def first_order(images: Tensor, gradients: Tensor, layout: Bands) -> Tensor:
    """Returns the first-order change of a score without each band: the gradient times the component of the band.

    Args:
        images: (N, C, H, W).
        gradients: the same shape, of a score of each image by its pixels.
        layout: of these images.

    Returns:
        (N, B * S) float64; if every coefficient has a cell, they sum to ``(gradients * images).sum((1, 2, 3))``.

    Source: ours. One transform of each instead of an inverse transform per cell (Parseval).
    """
    return _parseval(_transform(gradients.double()), _transform(images.double()), layout)


def _parseval(first: Tensor, second: Tensor, layout: Bands) -> Tensor:
    """Returns (N, B * S) inner products over pixels and colours, cell by cell, from two half transforms."""
    products = (first.conj() * second).real.sum(1) * layout.weights.to(first.device)
    return _summed(products, layout) / (layout.size[0] * layout.size[1])


def _summed(values: Tensor, layout: Bands) -> Tensor:
    """Returns (N, B * S) sums over the coefficients (N, H, W // 2 + 1) of every cell."""
    cells = layout.cells.to(values.device).flatten()
    inside = cells >= 0
    sums = values.new_zeros(len(values), layout.count * layout.sectors)
    return sums.index_add_(1, cells[inside], values.flatten(1)[:, inside])


def agreement(values: Tensor, reference: Tensor, *, top: int = 5) -> dict[str, Tensor]:
    """Returns how near influences are to reference ones.

    Args:
        values, reference: (P, B).
        top: how many largest bands to compare.

    Returns:
        (P,) each: ``pearson`` and ``spearman`` correlation over the bands, ``top`` the share of the reference's ``top``
        largest bands by magnitude that are also among those of the values, and ``relative_l1``, the sum of absolute
        differences over that of the reference. Correlations with a constant are NaN.

    Raises:
        ValueError: shapes that differ, or fewer bands than ``top``.

    >>> agreement(torch.tensor([[1.0, 2.0, 3.0]]), torch.tensor([[1.0, 2.0, 4.0]]), top=1)["relative_l1"]
    tensor([0.1429], dtype=torch.float64)
    """
    if values.shape != reference.shape or values.ndim != 2 or values.shape[1] < top:
        raise ValueError(
            f"expected two (P, B) of at least {top} bands, got {tuple(values.shape)} and {tuple(reference.shape)}"
        )
    a, b = values.double(), reference.double()
    largest = [x.abs().topk(top, dim=1).indices for x in (a, b)]
    shared = (largest[0][:, :, None] == largest[1][:, None]).any(2).double().mean(1)
    return {
        "pearson": _correlation(a, b),
        "spearman": _correlation(ranks(a), ranks(b)),
        "top": shared,
        "relative_l1": (a - b).abs().sum(1) / b.abs().sum(1),
    }


def _correlation(a: Tensor, b: Tensor) -> Tensor:
    a, b = a - a.mean(1, keepdim=True), b - b.mean(1, keepdim=True)
    product: Tensor = (a * b).sum(1) / (a.norm(dim=1) * b.norm(dim=1))
    return product
