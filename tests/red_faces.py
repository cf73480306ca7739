"""Drawn people who differ by their red, and a network that knows them."""

from __future__ import annotations

import torch
from torch import nn

from facexai import InputSpec


class Reds(nn.Module):
    """Knows people by the red of three places, where values leave 0 to 1 it sees nothing; RGB, (x - .5) / .5."""

    def forward(self, x):
        red = x[:, 0].unflatten(2, (4, 4)).mean(3).mean(1)
        return torch.where(red.abs() <= 1, red, 1.0)


def people(count=12, photos=4):
    """Each person has four shades of red; green and blue are anything."""
    drawn = torch.Generator().manual_seed(0)
    faces = {}
    for k in range(count):
        images = torch.rand(photos, 3, 16, 16, generator=drawn)
        shade = torch.rand(4, generator=drawn).repeat_interleave(4)
        images[:, 0] = (shade + 0.05 * torch.randn(photos, 16, 16, generator=drawn)).clamp(0, 1)
        faces[f"p{k}"] = images
    return faces


RIGHT = InputSpec(16, mean=0.5, std=0.5)
