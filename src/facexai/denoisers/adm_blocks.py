"""Parts of guided-diffusion's network: residual blocks conditioned on the step, attention, resampling."""

from __future__ import annotations

import math
from typing import Literal, final

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Resample = Literal["up", "down"]

GROUPS = 32
"""Of every group normalisation; numbers of channels are multiples of it."""


def waves(t: Tensor, channels: int) -> Tensor:
    """Returns steps (N,) as cosines, then sines, of frequencies that fall from 1 to nearly 1 / 10000: (N,
    channels) float32.

    >>> waves(torch.tensor([0]), 4)
    tensor([[1., 1., 0., 0.]])
    """
    half = channels // 2
    fall = torch.exp(-math.log(10000) / half * torch.arange(half, dtype=torch.float32, device=t.device))
    angles = t.float()[:, None] * fall
    return torch.cat([angles.cos(), angles.sin()], 1)


def resampled(x: Tensor, way: Resample | None) -> Tensor:
    """Returns maps of twice the size, every cell repeated, or of half the size, 2x2 means.

    >>> resampled(torch.tensor([[[[1.0, 3.0]]]]), "up")
    tensor([[[[1., 1., 3., 3.],
              [1., 1., 3., 3.]]]])
    """
    if way == "up":
        return F.interpolate(x, scale_factor=2.0, mode="nearest")
    return F.avg_pool2d(x, 2) if way == "down" else x


@final
class Residual(nn.Module):
    """Two convolutions and a shortcut: maps (N, C, H, W) and the step (N, E) -> (N, channels, H, W), also resampled.

    The step is added between the convolutions or, with ``scale_shift``, scales and shifts the normalised maps.
    """

    def __init__(
        self, channels_in: int, channels: int, embedding: int, *, scale_shift: bool, resample: Resample | None = None
    ) -> None:
        super().__init__()
        self.scale_shift, self.resample = scale_shift, resample
        self.in_layers = nn.Sequential(
            nn.GroupNorm(GROUPS, channels_in), nn.SiLU(), nn.Conv2d(channels_in, channels, 3, padding=1)
        )
        self.emb_layers = nn.Sequential(nn.SiLU(), nn.Linear(embedding, 2 * channels if scale_shift else channels))
        self.out_layers = nn.Sequential(
            nn.GroupNorm(GROUPS, channels),
            nn.SiLU(),
            nn.Identity(),  # dropout, in training; it keeps the convolution's name
            nn.Conv2d(channels, channels, 3, padding=1),
        )
        same = channels_in == channels
        self.skip_connection = nn.Identity() if same else nn.Conv2d(channels_in, channels, 1)

    def forward(self, x: Tensor, embedding: Tensor) -> Tensor:
        norm, act, conv = self.in_layers
        h = conv(resampled(act(norm(x)), self.resample))
        told = self.emb_layers(embedding)[:, :, None, None]
        norm, act, _, conv = self.out_layers
        if self.scale_shift:
            scale, shift = told.chunk(2, dim=1)
            h = norm(h) * (1 + scale) + shift
        else:
            h = norm(h + told)
        out: Tensor = self.skip_connection(resampled(x, self.resample)) + conv(act(h))
        return out


@final
class Attention(nn.Module):
    """Self-attention over all locations: (N, C, H, W) -> the same shape, added to the input.

    Args:
        channels: C.
        heads: in how many parts the channels look separately.
        new_order: the rows of ``qkv`` are all queries, all keys, all values; else those of one head after the other.
    """

    def __init__(self, channels: int, heads: int, *, new_order: bool) -> None:
        super().__init__()
        self.heads, self.new_order = heads, new_order
        self.norm = nn.GroupNorm(GROUPS, channels)
        self.qkv = nn.Conv1d(channels, 3 * channels, 1)
        self.proj_out = nn.Conv1d(channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        n, channels = x.shape[:2]
        cells = x.flatten(2)
        rows = self.qkv(self.norm(cells))
        if self.new_order:
            parts = rows.view(n, 3, self.heads, channels // self.heads, -1)
        else:
            parts = rows.view(n, self.heads, 3, channels // self.heads, -1).transpose(1, 2)
        query, key, value = parts.transpose(3, 4).unbind(1)
        seen = F.scaled_dot_product_attention(query, key, value)
        out: Tensor = cells + self.proj_out(seen.transpose(2, 3).reshape(n, channels, -1))
        return out.view_as(x)


@final
class Down(nn.Module):
    """Half the size by a convolution that moves by two."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.op = nn.Conv2d(channels, channels, 3, stride=2, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.op(x)
        return out


@final
class Up(nn.Module):
    """Twice the size, then a convolution."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.conv(resampled(x, "up"))
        return out


@final
class Stage(nn.Sequential):
    """Applies layers in sequence; residual blocks get the step, too."""

    def forward(self, x: Tensor, embedding: Tensor) -> Tensor:  # type: ignore[override]
        for layer in self:
            x = layer(x, embedding) if isinstance(layer, Residual) else layer(x)
        return x
