"""The uncertainty that an estimated threshold adds to a measurement."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import final

import numpy as np
from numpy.typing import NDArray

from facexai.functional._decision import accepted
from facexai.functional._dyads import Dyads, Error
from facexai.functional._weighted_thresholds import WeightedSweep
from facexai.metrics.verification import Rule, parsed_rule

Array = NDArray[np.float64]

_DRAWS = 400
_WORK = 2**30  # numbers that all draws may look at; of larger sets fewer draws
_FEWEST = 50


@final
@dataclass(frozen=True, eq=False)
class PairDecision:
    """The labelled pairs that a threshold is estimated from.

    Attributes:
        scores: (P,) cosines of all pairs given.
        same: (P,) one person.
        dyads: their people.
        rule: of the threshold, see :func:`facexai.metrics.threshold`.
        rows: (C,) places of the pairs that are measured among those given.
    """

    scores: Array
    same: NDArray[np.bool_]
    dyads: Dyads
    rule: Rule
    rows: NDArray[np.int64]

    @cached_property
    def sweep(self) -> WeightedSweep:
        """Returns the scores in order."""
        return WeightedSweep.of(self.scores, self.same)

    def error(self, limit: float, measure: Callable[[float], Array], seed: int = 0) -> Error | None:
        """Returns the standard error of a mean over pairs whose threshold is estimated from pairs of the same people.

        In each draw of people a pair of two people weighs the product of how often each was drawn, a pair of one person
        how often that person was, and the rule finds its threshold on the pairs with these weights. Over the draws, the
        effect of the new threshold on the mean is regressed on both error rates at ``limit``, which explain why the
        rule moves. The rows of the mean plus these multiples of the rows of the error rates have the dyadic-robust
        variance; what the regression leaves is added. Weights of draws vary too much where pairs share few people,
        which does not bias the regression.

        Args:
            limit: the threshold by the rule on all pairs.
            measure: gives the numbers (C,) of the measured pairs at a threshold.
            seed: of the draws.

        Returns:
            None where the rule is a number.
        """
        kind, rate = parsed_rule(self.rule)
        if kind == "number":
            return None
        fixed, values = measure(limit), lru_cache(maxsize=64)(measure)
        wrong = accepted(self.scores, limit) != self.same
        rows = [(self.rows, fixed)] + [(np.flatnonzero(of), wrong[of].astype(float)) for of in (self.same, ~self.same)]
        draws = int(np.clip(_WORK // (8 * len(self.scores) + fixed.size), _FEWEST, _DRAWS))
        moved, rates = [], []
        for row in self.dyads.drawn(draws, seed):
            own, weights = self.sweep.threshold(row, kind, rate), row[self.rows]
            if own is not None and weights.any():
                moved.append(weights @ (values(own) - fixed) / weights.sum())
                rates.append([row[of] @ part / row[of].sum() for of, part in rows[1:]])
        slopes, left = _regressed(np.array(moved), np.array(rates).reshape(-1, 2))
        residuals = np.zeros(len(self.scores))
        for slope, (of, part) in zip([1.0, *slopes], rows, strict=True):
            residuals[of] += slope * (part - part.mean()) * len(residuals) / len(of)
        error, mine = self.dyads.error(residuals), self.dyads[self.rows].error(fixed - fixed.mean())
        return Error(float(np.hypot(error.standard, left)), min(error.degrees, mine.degrees))


def _regressed(moved: Array, rates: Array) -> tuple[Array, float]:
    """Returns the slopes (2,) of moves (n,) on error rates (n, 2), and the standard deviation of what they leave."""
    if len(moved) < _FEWEST // 2:
        return np.zeros(2), 0.0
    centred = rates - rates.mean(0)
    slopes = np.linalg.lstsq(centred, moved - moved.mean(), rcond=None)[0]
    return slopes, float((moved - moved.mean() - centred @ slopes).std())
