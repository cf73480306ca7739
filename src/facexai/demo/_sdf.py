"""Shapes with soft edges (signed distance functions), and the random numbers that place them.

In numpy: operations on arrays this small lose more by torch's threads than they gain.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from facexai.perturb.draws import generator

Array = NDArray[Any]  # float32

FINE = 2
"""Sub-pixel points per axis."""

_NUMBERS = 64  # of each person, and of each photo


class Numbers:
    """Uniform random numbers of each item, consumed in order."""

    def __init__(self, seed: int, what: str, items: Sequence[int], more: int = 0) -> None:
        rows = [torch.rand(_NUMBERS + more, generator=generator(seed, i, f"drawn {what}")) for i in items]
        self._rows, self.rest = np.split(torch.stack(rows).numpy(), [_NUMBERS], axis=1)
        self._next = 0

    def __call__(self, low: float = 0.0, high: float = 1.0) -> Array:
        """Returns one number for each item, (N, 1, 1)."""
        self._next += 1
        numbers: Array = self._rows[:, self._next - 1, None, None] * (high - low) + low
        return numbers

    def often(self, share: float) -> Array:
        """Returns 1 with this probability, else 0, as (N, 1, 1)."""
        return (self() < share).astype(np.float32)

    def colour(self, palette: str) -> Array:
        """Returns one of the colours, a little lighter or darker, as (N, 3, 1, 1)."""
        colours = np.array([list(bytes.fromhex(colour)) for colour in palette.split()], np.float32) / 255
        chosen = colours[(self()[:, 0, 0] * len(colours)).astype(int)]
        shade: Array = np.clip(chosen[:, :, None, None] * self(0.92, 1.08)[:, None], 0, 1)
        return shade


class Canvas:
    """Pictures with the coordinates of the head: 0 between ears, crown and chin, 1 about half the picture, y down."""

    def __init__(self, photo: Numbers, size: int) -> None:
        points = size * FINE
        along = ((np.arange(points) * 2 + 1) / points - 1).astype(np.float32)
        self.x, self.y = along[None, None, :], along[None, :, None]
        scale, turn = photo(0.92, 1.1), photo(-0.14, 0.14)
        cos = 1 / np.sqrt(1 + turn * turn)
        right, down = (self.x - photo(-0.07, 0.07)) / scale, (self.y - photo(-0.02, 0.1)) / scale
        self.u: Array = (right + down * turn) * cos
        self.v: Array = (down - right * turn) * cos
        self.f = self.u - photo(-0.07, 0.07)  # the face is seen a little from the side
        self.side = np.abs(self.f)  # what eyes, brows, glasses and strings are symmetric in
        self._sharp = scale * (points / 2)
        self.image = np.zeros((len(scale), 3, points, points), np.float32)

    def cover(self, distance: Array) -> Array:
        """Returns the cover (N, H, W) of each point from the distance to the edge, which is negative inside."""
        return np.clip(0.5 - distance * self._sharp, 0, 1)

    def paint(self, cover: Array, colour: Array) -> None:
        """Blends a colour (N, 3, 1, 1) over the picture; a cover of 0 or 1 leaves one of them, bit by bit."""
        self.image *= (1 - cover)[:, None]
        self.image += colour * cover[:, None]


def ellipse(x: Array, y: Array, a: Array | float, b: Array | float) -> Array:
    """Returns the distance from an ellipse around 0, exact only for circles."""
    away: Array = (np.sqrt(np.square(x / a) + np.square(y / b)) - 1) * np.minimum(a, b)
    return away


def box(x: Array, y: Array, a: Array | float, b: Array | float, r: Array | float = 0.0) -> Array:
    """Returns the distance from a rectangle of half sides a and b around 0, with corners of radius r."""
    across, along = np.abs(x) - (a - r), np.abs(y) - (b - r)
    outside = np.sqrt(np.square(np.maximum(across, 0)) + np.square(np.maximum(along, 0)))
    distance: Array = np.minimum(np.maximum(across, along), 0) + outside - r
    return distance


def arc(x: Array, y: Array, width: Array, bend: Array, opening: Array | float, thick: Array | float) -> Array:
    """Returns the distance from a stroke along a parabola through (0, 0) and (width, -bend), which opens downwards."""
    part = np.square(x / width)
    slope = np.square(bend * 2 / width) * part + 1
    curve = y + bend * part
    inside = np.maximum(-curve, curve - opening * (1 - part)) / np.sqrt(slope)
    drawn: Array = np.maximum(inside - thick, np.abs(x) - width)
    return drawn


def wave(x: Array) -> Array:
    """Returns a triangle wave of period 1, from -0.5 to 0.5."""
    return 2 * np.abs(x - np.floor(x) - 0.5) - 0.5
