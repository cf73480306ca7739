"""The decision about a pair: one cosine, one comparison, and thresholds that rounding does not reach."""

from __future__ import annotations

import math
from numbers import Real
from typing import Any, NamedTuple

import numpy as np
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

Array = NDArray[np.float64]

GAP = 1e-5
"""Smallest distance between two scores that a threshold of ours is put between."""
NEAR = 1e-6
"""Distance from a threshold within which another batch size or device may decide otherwise."""

_AT_ONCE = 1024  # pairs: a few MB of products, which stay in the cache of the processor


def cosines(first: Tensor, second: Tensor) -> Tensor:
    """Returns cosines (P,) of rows (P, D), from -1 to 1: divided by their length and multiplied in float64."""
    return _products(_units(first), _units(second))


def cosines_of_pairs(rows: Tensor, index: Any) -> Array:
    """Returns the :func:`cosines` (P,) of pairs (P, 2) of rows (N, D), a part of the pairs at a time."""
    units = _units(rows.cpu())
    result = np.empty(len(index))
    for start in range(0, len(index), _AT_ONCE):
        part = np.asarray(index[start : start + _AT_ONCE])
        result[start : start + len(part)] = _products(units[part[:, 0]], units[part[:, 1]]).numpy()
    return result


def cosines_to_all(rows: Tensor, others: Tensor) -> Tensor:
    """Returns the :func:`cosines` (N, C) of every row (N, D) with every other row (C, D), as one matrix product."""
    return (_units(rows) @ _units(others).T).clamp(-1, 1)


def _units(rows: Tensor) -> Tensor:
    return F.normalize(rows.detach().double(), dim=-1)


def _products(first: Tensor, second: Tensor) -> Tensor:
    return (first * second).sum(-1).clamp(-1, 1)


def accepted(scores: Any, threshold: float) -> NDArray[np.bool_]:
    """Returns whether scores (P,) reach the threshold, compared in float64.

    >>> accepted([0.5, 0.4], 0.5)
    array([ True, False])
    """
    return np.asarray(_double(scores) >= float(threshold))


def near(scores: Any, threshold: float) -> NDArray[np.bool_]:
    """Returns whether scores (P,) are within 1e-6 of the threshold.

    >>> near([0.5, 0.4], 0.5)
    array([ True, False])
    """
    return np.asarray(np.abs(_double(scores) - float(threshold)) <= NEAR)


class Verdict(NamedTuple):
    """A decision about one score.

    Attributes:
        threshold: the score from which a pair is accepted; None: no threshold decides.
        accepted: whether the score reaches it; None without a threshold or a score.
        near: whether the score is within 1e-6 of it.
    """

    threshold: float | None
    accepted: bool | None
    near: bool

    @classmethod
    def of(cls, score: Tensor | float | None, threshold: float | None) -> Verdict:
        """Returns the decision about a score, by :func:`accepted` and :func:`near`."""
        if score is None or threshold is None:
            return cls(threshold, None, False)
        return cls(threshold, bool(accepted(score, threshold)), bool(near(score, threshold)))


def is_threshold(value: object) -> bool:
    """Returns whether a value can be the threshold of cosines: a number from -1 to 1.

    Where all scores are within 1e-5 of 1 or -1, :func:`placements` gives thresholds that are half of that beyond.

    >>> is_threshold(1.000005), is_threshold(1.1), is_threshold(True)
    (True, False, False)
    """
    real = isinstance(value, Real) and not isinstance(value, bool)
    return real and math.isfinite(value) and abs(float(value)) <= 1 + GAP  # type: ignore[arg-type]


def _double(scores: Any) -> Array:
    return np.asarray(scores.detach().cpu().numpy() if isinstance(scores, Tensor) else scores, dtype=np.float64)


def placements(falling: Array, *, upward: bool = False) -> Array:
    """Returns the threshold for each score: the middle of the nearest gap of at least 1e-5.

    A threshold just below a score accepts it and all higher ones. If the next lower score is too near, the nearest gap
    on either side is taken, which changes the decision about the scores between. Above the highest and below the lowest
    score, thresholds are 5e-6 away.

    Args:
        falling: (K,) different scores, falling.
        upward: takes no gap below, so that nothing else is accepted.

    Returns:
        (K,) thresholds.

    >>> placements(np.array([0.9, 0.7, 0.699999, 0.1])).round(6)
    array([0.8     , 0.8     , 0.4     , 0.099995])
    """
    ends = np.concatenate([[falling[0] + GAP], falling, [falling[-1] - GAP]])
    middles, wide = (ends[:-1] + ends[1:]) / 2, ends[:-1] - ends[1:] >= GAP * (1 - 1e-9)
    wide[[0, -1]] = True
    gaps, own = np.flatnonzero(wide), np.arange(1, len(middles))
    above = gaps[np.searchsorted(gaps, own, "right") - 1]
    if upward:
        return np.asarray(middles[above])
    below = gaps[np.searchsorted(gaps, own, "left")]
    up, down = middles[above] - middles[own], middles[own] - middles[below]
    return np.asarray(np.where(up <= down, middles[above], middles[below]))
