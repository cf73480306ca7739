"""Thresholds by the named rules where pairs have weights, as in draws of people."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Literal, final

import numpy as np
from numpy.typing import NDArray

from facexai.functional._decision import placements

Array = NDArray[np.float64]
Kind = Literal["eer", "accuracy", "far"]


@final
@dataclass(frozen=True, eq=False)
class WeightedSweep:
    """Scores in falling order, so that a threshold for other weights costs sums and no sorting.

    Attributes:
        order: (P,) rows by falling score.
        last: (K,) place in that order of the last row with each score that occurs.
        falling: (K,) the scores that occur, falling.
        same: (P,) labels in that order.
    """

    order: NDArray[np.int64]
    last: NDArray[np.int64]
    falling: Array
    same: NDArray[np.bool_]

    @classmethod
    def of(cls, scores: Array, same: NDArray[np.bool_]) -> WeightedSweep:
        """Returns the sweep of scores (P,) and labels (P,)."""
        order = np.argsort(-scores, kind="stable")
        falling = scores[order]
        last = np.flatnonzero(np.append(falling[1:] != falling[:-1], True))
        return cls(order, last, falling[last], same[order])

    @cached_property
    def _nearest(self) -> Array:
        return placements(self.falling)

    @cached_property
    def _above(self) -> Array:
        return placements(self.falling, upward=True)

    def threshold(self, weights: Array, kind: Kind, rate: float = 0.0) -> float | None:
        """Returns the threshold of :func:`facexai.metrics.threshold` for rows that count so many times.

        Args:
            weights: (P,) whole numbers, in the order of the scores given.
            kind: of the rule; ``rate`` is that of ``"far"``.

        Returns:
            A threshold in a gap between scores that occur, infinity where the rule accepts no pair, None without pairs
            of both kinds. Scores of weight 0 count as scores that occur: they decide nothing else.
        """
        row = weights[self.order]
        genuine, impostor = np.cumsum(row * self.same)[self.last], np.cumsum(row * ~self.same)[self.last]
        few, many = genuine[-1], impostor[-1]
        if few == 0 or many == 0:
            return None
        if kind == "eer":
            return float(self._nearest[np.argmin(np.abs(impostor * few - (few - genuine) * many))])
        if kind == "accuracy":
            right = np.where(genuine + impostor > 0, genuine + many - impostor, -1)  # somebody is accepted
            return float(self._nearest[np.argmax(right)])
        place = int(np.searchsorted(impostor / many, rate, "right")) - 1
        return float(self._above[place]) if place >= 0 else float("inf")
