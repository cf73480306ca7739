"""Scaled Directed Divergence: evidence for the target that its rivals lack."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from facexai.functional.cam import at_least_float32, minmax

Scale = Literal["minmax", "none"]
Amplify = Literal["power", "exp", "none"]
Divergence = Literal["difference", "kl"]

_KL_EPS = 1e-6


def sdd(
    target: Tensor,
    rivals: Tensor,
    power: float = 15.0,
    scale: Scale = "minmax",
    amplify: Amplify = "power",
    divergence: Divergence = "difference",
) -> Tensor:
    """Returns the target's map minus the maps of its rivals, amplified.

    ``c_k = minmax(M_k)``, ``D = sum over rivals of (c_t - c_r)``, ``SDD = minmax(D) ** power``.

    Args:
        target: (N, h, w), class maps of the target in cells, before any ReLU.
        rivals: (N, R, h, w), class maps of R >= 1 rivals of the same layer.
        power: exponent of the amplification; 15 reproduces the published figures.
        scale: ``"minmax"`` scales every class map to [0, 1] first; ``"none"`` subtracts the raw maps.
        amplify: ``"power"``; ``"exp"``: ``exp(power * (minmax(D) - 1))``; ``"none"``: D itself, in its own units.
        divergence: ``"difference"``; ``"kl"``: the cell-wise terms ``c_t log((c_t + e) / (c_r + e))``, an ablation
            that needs ``scale="minmax"``.

    Returns:
        (N, h, w), in [0, 1] unless ``amplify="none"``. Constant and identical maps give zeros.

    Raises:
        ValueError: shapes do not fit, no rival, a non-finite map, an unknown option.

    Source: reconstructed. Verenich et al. 2021 (doi 10.1007/978-3-030-76409-8_7) and Shadman et al. 2025
    (arXiv:2505.03837) describe the steps in words and figures; ``"exp"`` and ``"kl"`` are ours.

    >>> t, r = torch.tensor([[[1.0, 0.0, 0.5]]]), torch.tensor([[[[0.0, 1.0, 0.5]]]])
    >>> sdd(t, r, power=1.0)
    tensor([[[1.0000, 0.0000, 0.5000]]])
    >>> sdd(t, r, amplify="none")
    tensor([[[ 1., -1.,  0.]]])
    """
    _check(target, rivals, power, scale, amplify, divergence)
    target, rivals = at_least_float32(target)[:, None], at_least_float32(rivals)
    if scale == "minmax":
        target, rivals = minmax(target), minmax(rivals)
    # The sum of differences, not R * c_t - sum: it is exactly zero for identical maps in floating point.
    if divergence == "difference":
        difference = (target - rivals).sum(1)
    else:
        difference = (target * ((target + _KL_EPS) / (rivals + _KL_EPS)).log()).sum(1)
    if amplify == "none":
        return difference
    size = torch.maximum(target.abs().amax((1, 2, 3)), rivals.abs().amax((1, 2, 3)))[:, None, None] * rivals.shape[1]
    scaled = minmax(difference, magnitude=size)
    if amplify == "power":
        return scaled**power
    flat = (scaled == 0).all(-1, keepdim=True).all(-2, keepdim=True)
    return torch.where(flat, torch.zeros_like(scaled), torch.exp(power * (scaled - 1)))


def _check(target: Tensor, rivals: Tensor, power: float, scale: str, amplify: str, divergence: str) -> None:
    if target.ndim != 3 or rivals.ndim != 4 or rivals.shape[1] < 1:
        raise ValueError(
            "expected target (N, h, w) and rivals (N, R, h, w) with R >= 1, "
            f"got {tuple(target.shape)} and {tuple(rivals.shape)}"
        )
    if (target.shape[0], *target.shape[1:]) != (rivals.shape[0], *rivals.shape[2:]):
        raise ValueError(
            f"target {tuple(target.shape)} and rivals {tuple(rivals.shape)} differ in images or cells; "
            "take both from the same images and the same layer"
        )
    if not (torch.isfinite(target).all() and torch.isfinite(rivals).all()):
        raise ValueError("expected finite class maps, got NaN or infinity")
    if not power > 0:
        raise ValueError(f"expected power > 0, got {power}")
    for name, value, options in (
        ("scale", scale, ("minmax", "none")),
        ("amplify", amplify, ("power", "exp", "none")),
        ("divergence", divergence, ("difference", "kl")),
    ):
        if value not in options:
            raise ValueError(f"expected {name} one of {options}, got {value!r}")
    if divergence == "kl" and scale != "minmax":
        raise ValueError("divergence='kl' takes logarithms of maps in [0, 1]: it needs scale='minmax'")
