"""Numbers per image or pair that add: mean, interval by people, paired comparison."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, final

import numpy as np
from numpy.typing import NDArray

from facexai._html import facts
from facexai.functional._dyads import Dyads, Error
from facexai.metrics._identities import pairs_of

Array = NDArray[np.float64]

_DRAWS = 2000
_MANY = 20_000  # people from which on a normal distribution stands for draws: they would differ by less than a per cent


INTERVALS = {
    True: "95 %, both people of each pair: dyadic-robust, Student's t",
    False: "95 %, bootstrap by person, or by image where no person is known",
}
"""The method of the interval in recipes, by whether rows are pairs."""


@final
@dataclass(frozen=True, eq=False)
class Statistic:
    """A statistic: one number for each image, or for each pair of images, with mean, interval and test.

    Attributes:
        values: (N,) float64.
        items: (N,) numbers of the images, or pairs, in their data set.
        identities: (N,) name of the person in each image, of a pair in the first, or None. An unknown person is called
            ``"unknown person, item 7"`` by the number of the image, so that parts can be added.
        partners: (N,) name of the person in the second image of each pair; None where rows are about one person each.
            An unknown one is called ``"unknown partner, item 7"``.
        bounds: the smallest and the largest value that is possible, or None.

    Statistics of two parts of a data set add to that of the whole.

    Where rows are pairs, :attr:`interval` and :meth:`p_value` follow from the dyadic-robust variance of the mean with
    Student's t on the number of people minus 1: pairs that share a person are not independent, whichever of the two
    it is. The variance is at least the one that independent pairs of people would have.

    >>> Statistic.of([1.0, 3.0]).mean
    2.0
    >>> (Statistic.of([1.0]) + Statistic.of([3.0], items=[1])).mean
    2.0
    """

    values: Array
    items: NDArray[np.int64]
    identities: tuple[str, ...] | None = None
    partners: tuple[str, ...] | None = None
    bounds: tuple[float, float] | None = None

    def __post_init__(self) -> None:
        first, second = pairs_of(self.identities, self.partners, list(self.items), "images")
        object.__setattr__(self, "identities", first)
        object.__setattr__(self, "partners", second)

    @classmethod
    def of(
        cls,
        values: Any,
        *,
        items: Sequence[int] | None = None,
        identities: Sequence[str | None] | None = None,
        partners: Sequence[str | None] | None = None,
        bounds: tuple[float, float] | None = None,
    ) -> Statistic:
        """Returns the statistic of anything that is a row of numbers.

        Args:
            values: (N,) finite numbers, one for each image.
            items: (N,) distinct whole numbers of the images in their data set. Default: 0 to N - 1.
            identities: (N,) person in each image, by name or number; names are compared as text, and 7 and 7.0 are one
                person. None, NaN and blank text mean an unknown person; each of them counts as a person of their
                own, in intervals, tests and controls. Default: no person is known, and images are drawn instead of
                people. All metrics take identities like these.
            partners: (N,) the second person of each pair, named like the first: in a pair of one person the same name.
                Default: every row is about one person.
            bounds: the smallest and the largest value that is possible. Where all pairs have one value, the interval
                covers what so few people cannot rule out; without bounds there is then none.

        Raises:
            ValueError: no number, lengths that differ (also no identity where there are images), numbers that are
                not finite or beyond the bounds.

        >>> len(set(Statistic.of([1.0, 2.0, 3.0], identities=["ann", None, None]).identities))
        3
        """
        row = np.asarray(values, dtype=np.float64)
        numbers = np.arange(len(row)) if items is None else np.asarray(items, dtype=np.int64)
        if row.ndim != 1 or len(row) == 0 or numbers.shape != row.shape:
            raise ValueError(f"expected one number and one item per image, got {row.shape} and {numbers.shape}")
        if len(set(numbers.tolist())) < len(numbers):
            raise ValueError("expected distinct item numbers")
        if not np.isfinite(row).all():
            raise ValueError("expected finite numbers, got NaN or infinity")
        if bounds is not None and not bounds[0] <= row.min() <= row.max() <= bounds[1]:
            raise ValueError(f"expected numbers from {bounds[0]} to {bounds[1]}, got {row.min()} to {row.max()}")
        return cls(row, numbers, identities, partners, bounds)  # type: ignore[arg-type]

    def __add__(self, other: Statistic) -> Statistic:
        sides = [(self.identities, other.identities), (self.partners, other.partners)]
        if any((mine is None) != (theirs is None) for mine, theirs in sides):
            raise ValueError("one part knows identities and the other does not; give both or neither")
        if set(self.items.tolist()) & set(other.items.tolist()):
            raise ValueError("the parts share items; number the images of the data set and pass items=")
        values, items = np.concatenate([self.values, other.values]), np.concatenate([self.items, other.items])
        order = np.argsort(items, kind="stable")
        joined = [None if mine is None or theirs is None else (*mine, *theirs) for mine, theirs in sides]
        names = [None if people is None else tuple(people[i] for i in order) for people in joined]
        return Statistic(values[order], items[order], names[0], names[1], self.bounds)

    def __len__(self) -> int:
        return len(self.values)

    def _repr_html_(self) -> str:
        people = None if self.identities is None else len({*self.identities, *(self.partners or ())})
        rows = "images" if self.partners is None else "pairs"
        return facts({"mean": self.mean, "95 %": self.interval, rows: len(self), "people": people})

    @property
    def mean(self) -> float:
        """Returns the mean over images, summed in the order of items."""
        return float(self.values.sum() / len(self.values))

    @cached_property
    def dyads(self) -> Dyads | None:
        """Returns the two people of each pair, as numbers; None where rows are about one person each."""
        if self.partners is None or self.identities is None:
            return None
        return Dyads.of(self.identities, self.partners)

    @property
    def interval(self) -> tuple[float, float] | None:
        """Returns the 95 % interval of the mean; None where there is but one person, image or pair of people.

        Rows about one person each: bootstrap percentiles; people are drawn where identities are known, else images. Of
        more than 20,000 people (or images) it is the normal interval of the same mean. Pairs: the mean plus and minus
        Student's t times the dyadic-robust standard error, within :attr:`bounds`. Where all pairs have one value, which
        no error occurs, or errors only, it reaches as far as ``1 - .05^(1/m)`` of the pairs could take the
        mean, of m pairs that share no person.
        """
        if self.dyads is not None:
            return self.pair_interval()
        sums, counts = self._clusters()
        if len(sums) <= _MANY:
            return self.bootstrap()
        away = 1.959964 * float(np.sqrt(((sums - self.mean * counts) ** 2).sum()) / counts.sum())
        return (self.mean - away, self.mean + away)

    def pair_interval(self, error: Error | None = None) -> tuple[float, float] | None:
        """Returns the interval of pairs with another standard error, such as one that counts an estimated threshold.

        Raises:
            ValueError: rows about one person each.
        """
        dyads = self._pairs()
        if self._one_dyad or (self._alike and self.bounds is None):
            return None
        if self._alike and self.bounds is not None:
            unseen, (least, most) = dyads.unseen(), self.bounds
            return (self.mean - unseen * (self.mean - least), self.mean + unseen * (most - self.mean))
        away = (dyads.error(self.values - self.mean) if error is None else error).away()
        least, most = (-np.inf, np.inf) if self.bounds is None else self.bounds
        return (max(least, self.mean - away), min(most, self.mean + away))

    def _pairs(self) -> Dyads:
        if self.dyads is None:
            raise ValueError(
                "expected numbers of pairs with both people, got rows about one person each; pass partners="
            )
        return self.dyads

    @property
    def _alike(self) -> bool:
        """Returns whether the means of all pairs of people are equal but for rounding, so that no variance is seen."""
        residuals = np.bincount(self._pairs().dyad, self.values - self.mean)
        return bool(np.abs(residuals).max() <= 1e-12 * len(self.values) * np.abs(self.values).max())

    @property
    def _one_dyad(self) -> bool:
        """Returns whether all pairs are of the same two people, or of one."""
        return self.dyads is not None and not self.dyads.dyad.any()

    def bootstrap(self, *, draws: int = _DRAWS, seed: int = 0, level: float = 0.95) -> tuple[float, float] | None:
        """Returns bootstrap percentiles of the mean, at any level, number of draws or seed.

        Of pairs, too, people are drawn, once for both sides: a pair of two people weighs the product of how often each
        was drawn, a pair of one person how often that person was. It is wider than :attr:`interval` where pairs share
        few people. With one identity (or one image) there is nothing to draw, and the interval is None.
        """
        if self.dyads is not None:
            if self.dyads.people < 2:
                return None
            means = [(row @ self.values) / row.sum() for row in self.dyads.drawn(draws, seed)]
        else:
            sums, counts = self._clusters()
            if len(sums) < 2:
                return None
            rng = np.random.default_rng(seed)
            rows = (rng.integers(0, len(sums), len(sums)) for _ in range(draws))  # one draw at a time: large sets fit
            means = [sums[row].sum() / counts[row].sum() for row in rows]
        low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
        return (float(low), float(high))

    def _clusters(self) -> tuple[Array, Array]:
        """Returns the sum and count per person, or per image."""
        if self.identities is None:
            return self.values, np.ones(len(self.values))
        _, person = np.unique(self.identities, return_inverse=True)
        return np.bincount(person, self.values).astype(np.float64), np.bincount(person).astype(np.float64)

    def p_value(self, other: Statistic, error: Error | None = None) -> float | None:
        """Returns the chance of a mean difference this large if the two did not differ.

        Rows about one person each: paired, signs flipped by person or image. Pairs: Student's t on people - 1 of the
        mean difference over its dyadic-robust standard error; if all pairs of people differ by the same amount, the
        chance that m pairs which share no person agree in sign.

        Args:
            other: the same images or pairs under the control.
            error: of the mean difference of pairs, where it is another one, such as one that counts an estimated
                threshold.

        Returns:
            None with one person, image or pair of people, where nothing can be tested.
            Else two-sided p in (0, 1]; of sign flips (1 + count) / (1 + draws) with 9,999 draws, all sign patterns
            where those are fewer; of more than 20,000 people the normal approximation of that.

        Raises:
            ValueError: other images.
        """
        if not np.array_equal(self.items, other.items):
            raise ValueError("a paired test needs the same images in the same order")
        difference = Statistic(self.values - other.values, self.items, self.identities, self.partners)
        if difference.dyads is not None:
            return difference._p_of_pairs(difference.dyads, error)
        sums, counts = difference._clusters()
        if len(sums) < 2:
            return None
        if not np.any(sums):
            return 1.0
        return _sign_flips(sums, counts.sum())

    def _p_of_pairs(self, dyads: Dyads, error: Error | None) -> float | None:
        """Returns the p-value of a mean that differs from 0."""
        if self._one_dyad:
            return None
        if not np.any(self.values):
            return 1.0
        if self._alike or (error is not None and error.standard == 0):
            return float(2.0 ** (1 - dyads.independent()))
        return (dyads.error(self.values - self.mean) if error is None else error).p_value(self.mean)


def _sign_flips(sums: Array, whole: float) -> float:
    """Returns the p-value of sums by person, over a number of images, if the sign of each was chance."""
    from scipy import stats

    if len(sums) > _MANY:
        return float(2 * stats.norm.sf(abs(sums.sum()) / np.sqrt((sums**2).sum())))

    def mean(x: Array, axis: int) -> Any:
        return x.sum(axis) / whole

    test = stats.permutation_test(
        (sums,),
        mean,
        permutation_type="samples",
        vectorized=True,
        n_resamples=9999,
        batch=max(1, 2_000_000 // len(sums)),
        rng=np.random.default_rng(0),
    )
    return float(test.pvalue)
