"""Gaussian diffusion: noise levels, one step backwards, and which pixels an edit left alone."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import final

import torch
import torch.nn.functional as F
from torch import Tensor


@final
@dataclass(frozen=True, eq=False)
class Schedule:
    """The noise levels of a diffusion, for some of the steps that the network was trained on.

    Images are in [-1, 1]. A step is named by its place among those that are taken, 0 the least noisy.

    Attributes:
        timesteps: (n,) int64, the network's own numbers of the steps.
        alphas_cumprod: (n,) float64, the share of the image's variance that is left after each step.

    Source: Ho, Jain and Abbeel 2020, arXiv:2006.11239, eqs. 4, 6, 7 and 15; learned variances and fewer steps: Nichol
    and Dhariwal 2021, arXiv:2102.09672, sec. 3.1 and 4.
    """

    timesteps: Tensor
    alphas_cumprod: Tensor

    def __post_init__(self) -> None:
        left = self.alphas_cumprod
        before = torch.cat([left.new_ones(1), left[:-1]])
        betas = 1 - left / before
        small = betas * (1 - before) / (1 - left)
        small[0] = small[1] if len(small) > 1 else betas[0]  # the first step has none: it borrows the second's
        held = {
            "_x": betas * before.sqrt() / (1 - left),
            "_z": (1 - before) * (1 - betas).sqrt() / (1 - left),
            "_log_small": small.log(),
            "_log_large": betas.log(),
        }
        for name, values in held.items():
            object.__setattr__(self, name, values.tolist())

    def __len__(self) -> int:
        return len(self.timesteps)

    def noised(self, images: Tensor, step: int, noise: Tensor) -> Tensor:
        """Returns images (N, 3, H, W) after a step of the forward process, with unit noise of the same shape."""
        left = float(self.alphas_cumprod[step])
        return math.sqrt(left) * images + math.sqrt(1 - left) * noise

    def estimate(self, noisy: Tensor, step: int, noise: Tensor) -> Tensor:
        """Returns the clean images that a network's estimate of the noise amounts to, clamped to [-1, 1]."""
        left = float(self.alphas_cumprod[step])
        return (math.sqrt(1 / left) * noisy - math.sqrt(1 / left - 1) * noise).clamp(-1, 1)

    def posterior(self, clean: Tensor, noisy: Tensor, step: int) -> Tensor:
        """Returns the mean of the images one step earlier, given the clean and the noisy ones."""
        of_clean, of_noisy = self._x[step], self._z[step]  # type: ignore[attr-defined]
        mean: Tensor = of_clean * clean + of_noisy * noisy
        return mean

    def log_variance(self, step: int, values: Tensor | None, like: Tensor) -> Tensor:
        """Returns the logarithm of the variance of a backward step.

        Args:
            step: which.
            values: (N, 3, H, W), where between the two bounds a network puts it, -1 the posterior's, 1 the forward
                process's; None: the posterior's.
            like: a tensor whose dtype and device the answer has.
        """
        small, large = self._log_small[step], self._log_large[step]  # type: ignore[attr-defined]
        if values is None:
            return like.new_tensor(small)
        share = (values + 1) / 2
        between: Tensor = share * large + (1 - share) * small
        return between


def linear_alphas(steps: int) -> Tensor:
    """Returns the share of the image's variance that is left after each of T steps of the linear
    schedule: (T,) float64.

    Betas rise from 0.1 / T to 20 / T, so that a thousand steps have 1e-4 to 0.02.

    >>> float(linear_alphas(1000)[0])
    0.9999
    """
    return (1 - torch.linspace(0.1 / steps, 20 / steps, steps, dtype=torch.float64)).cumprod(0)


def respaced(alphas_cumprod: Tensor, steps: int) -> Schedule:
    """Returns a schedule of some of the steps that a network was trained on, evenly spread from the first to the last.

    Args:
        alphas_cumprod: (T,), of all steps.
        steps: how many to keep, 2 to T.

    Raises:
        ValueError: more steps than there are, or no decreasing row of numbers between 0 and 1.

    >>> respaced(linear_alphas(500), 200).timesteps[[0, 1, 60, -1]]
    tensor([  0,   3, 150, 499])
    """
    left = alphas_cumprod.detach().cpu().double()
    if left.ndim != 1 or len(left) < 2 or not ((left > 0) & (left < 1)).all() or not (left.diff() < 0).all():
        raise ValueError(
            f"expected alphas_cumprod (T,), falling, between 0 and 1, got {tuple(alphas_cumprod.shape)} from "
            f"{float(left.flatten()[0]) if left.numel() else float('nan'):g}"
        )
    if not 2 <= steps <= len(left):
        raise ValueError(f"expected 2 to {len(left)} steps, those that the denoiser has, got respacing={steps}")
    kept = torch.tensor([round(k * (len(left) - 1) / (steps - 1)) for k in range(steps)])
    return Schedule(kept, left[kept])


def small_change_mask(images: Tensor, edited: Tensor, threshold: float, dilation: int) -> Tensor:
    """Returns where an edit hardly differs from the image, by the largest difference of that image.

    Args:
        images, edited: (N, 3, H, W) in [-1, 1].
        threshold: share of the largest difference, summed over colours, from which a pixel counts as edited.
        dilation: side of the square, odd, in which one edited pixel makes all edited.

    Returns:
        (N, 1, H, W), True where the image stays; for identical images everywhere.

    Source: Weng et al. 2024, arXiv:2312.14223, eq. 6.

    >>> image = torch.zeros(1, 3, 4, 4)
    >>> edited = image.clone(); edited[0, 0, 0, 0] = 1
    >>> small_change_mask(image, edited, 0.15, 3)[0, 0].int()
    tensor([[0, 0, 1, 1],
            [0, 0, 1, 1],
            [1, 1, 1, 1],
            [1, 1, 1, 1]], dtype=torch.int32)
    """
    difference = ((images + 1) / 2 - (edited + 1) / 2).abs().sum(1, keepdim=True)
    largest = difference.flatten(1).amax(1)[:, None, None, None]
    share = difference / torch.where(largest > 0, largest, 1)
    return F.max_pool2d(share, dilation, stride=1, padding=dilation // 2) < threshold


def top_gradient_mask(values: Tensor, share: float, dilation: int = 1) -> Tensor:
    """Returns the pixels of largest magnitude, summed over colours, and those around them.

    Args:
        values: (N, 3, H, W), such as a gradient.
        share: of the pixels, more than 0, at most 1, at least one; where fewer differ from zero, those.
        dilation: side of the square, odd, in which one such pixel takes in all.

    Returns:
        (N, 1, H, W) bool.

    >>> top_gradient_mask(torch.eye(3)[None, None].expand(1, 3, 3, 3) * torch.tensor([1.0, 2.0, 3.0]), 0.1)[0, 0].int()
    tensor([[0, 0, 0],
            [0, 0, 0],
            [0, 0, 1]], dtype=torch.int32)
    """
    size = values.abs().sum(1)
    count = max(1, round(share * size[0].numel()))
    return _marked(size, size.flatten(1).topk(count).indices, dilation)


def nested_strongest(values: Tensor, share: float, inner: float, dilation: int) -> tuple[Tensor, Tensor]:
    """Returns the pixels of largest mean magnitude, and the strongest among them, both dilated.

    Args:
        values: (N, 3, H, W), such as a gradient.
        share: of all pixels, for the outer mask; rounded down, at least one pixel. Zeros are left out.
        inner: share of the outer mask's pixels before dilation, for the inner mask; rounded down, at least one pixel.
        dilation: side of the square, odd, by which both masks grow.

    Returns:
        The outer and the inner mask, (N, 1, H, W) bool each; the inner one lies inside the outer one.

    Source: Guo et al. 2026, arXiv:2602.18792, as their code has it (see :class:`facexai.FastDiME`).

    >>> values = torch.arange(16.0).view(1, 1, 4, 4)
    >>> outer, inner = nested_strongest(values, 0.3, 0.5, 1)
    >>> outer[0, 0].int() + inner[0, 0].int()
    tensor([[0, 0, 0, 0],
            [0, 0, 0, 0],
            [0, 0, 0, 0],
            [1, 1, 2, 2]], dtype=torch.int32)
    """
    size = values.abs().mean(1)
    count = max(1, int(share * size.shape[1] * size.shape[2]))
    order = size.flatten(1).topk(count).indices
    return _marked(size, order, dilation), _marked(size, order[:, : max(1, int(inner * count))], dilation)


def _marked(size: Tensor, places: Tensor, dilation: int) -> Tensor:
    """Returns (N, 1, H, W) bool: the places of a flattened (N, H, W) that are not zero, dilated."""
    marked = torch.zeros_like(size).flatten(1).scatter(1, places, 1.0).view_as(size) * (size > 0)
    return F.max_pool2d(marked[:, None], dilation, stride=1, padding=dilation // 2) > 0
