"""Test protocols that add the mirrored image: its output is summed or appended, and maps are mirrored back."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

Flip = Literal["sum", "concat"] | None


def both(x: Tensor, flip: Flip) -> Tensor:
    """Returns the input with its mirrored branch behind it: (B*N, ...)."""
    return x if flip is None else torch.cat([x, x.flip(-1)])


def joined(outputs: Tensor, flip: Flip) -> Tensor:
    """Returns outputs of all branches (B*N, D) as features (N, D')."""
    if flip is None:
        return outputs
    plain, mirrored = outputs.chunk(2)
    return plain + mirrored if flip == "sum" else torch.cat([plain, mirrored], 1)


def split(directions: Tensor, flip: Flip) -> Tensor:
    """Returns directions in feature space (N, K, D') as directions of the outputs (B*N, K, D)."""
    if flip is None:
        return directions
    return torch.cat([directions, directions] if flip == "sum" else list(directions.chunk(2, dim=-1)))


def merged(maps: Tensor, flip: Flip) -> Tensor:
    """Adds the maps of all branches (B*N, ..., w), mirrored ones mirrored back: (N, ..., w)."""
    if flip is None:
        return maps
    plain, mirrored = maps.chunk(2)
    return plain + mirrored.flip(-1)
