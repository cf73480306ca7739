"""Numbers per image that add: mean, interval by identity, paired comparison."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, final

import numpy as np
from numpy.typing import NDArray

from facexai._notebook import facts
from facexai.metrics._identities import people_of

Array = NDArray[np.float64]

_DRAWS = 2000
_MANY = 20_000  # people from which on a normal distribution stands for draws: they would differ by less than a per cent


@final
@dataclass(frozen=True, eq=False)
class Statistic:
    """One number for each image, and what follows from them.

    Attributes:
        values: (N,) float64.
        items: (N,) numbers of the images in their data set.
        identities: (N,) name of the person in each image, or None. An unknown person is called
            ``"unknown person, item 7"`` by the number of the image, so that parts can be added.

    Statistics of two parts of a data set add to that of the whole.

    >>> Statistic.of([1.0, 3.0]).mean
    2.0
    >>> (Statistic.of([1.0]) + Statistic.of([3.0], items=[1])).mean
    2.0
    """

    values: Array
    items: NDArray[np.int64]
    identities: tuple[str, ...] | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "identities", people_of(self.identities, list(self.items)))

    @classmethod
    def of(
        cls, values: Any, *, items: Sequence[int] | None = None, identities: Sequence[str | None] | None = None
    ) -> Statistic:
        """Returns the statistic of anything that is a row of numbers.

        Args:
            values: (N,) finite numbers, one for each image.
            items: (N,) distinct whole numbers of the images in their data set. Default: 0 to N - 1.
            identities: (N,) person in each image, by name or number; names are compared as text, and 7 and 7.0 are one
                person. None, NaN and blank text stand for an unknown person; each of them counts as a person of their
                own, in intervals, tests and controls. Default: no person is known, and images are drawn instead of
                people. All metrics take identities like these.

        Raises:
            ValueError: no number, lengths that differ (also no identity where there are images), or numbers that are
                not finite.

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
        return cls(row, numbers, identities)  # type: ignore[arg-type]

    def __add__(self, other: Statistic) -> Statistic:
        if (self.identities is None) != (other.identities is None):
            raise ValueError("one part knows identities and the other does not; give both or neither")
        if set(self.items.tolist()) & set(other.items.tolist()):
            raise ValueError("the parts share items; number the images of the data set and pass items=")
        people = None if self.identities is None else (*self.identities, *(other.identities or ()))
        values, items = np.concatenate([self.values, other.values]), np.concatenate([self.items, other.items])
        order = np.argsort(items, kind="stable")
        people = None if people is None else tuple(people[i] for i in order)
        return Statistic(values[order], items[order], people)

    def __len__(self) -> int:
        return len(self.values)

    def _repr_html_(self) -> str:
        people = None if self.identities is None else len(set(self.identities))
        return facts({"mean": self.mean, "95 %": self.interval, "images": len(self), "people": people})

    @property
    def mean(self) -> float:
        """The mean over images, summed in the order of items."""
        return float(self.values.sum() / len(self.values))

    @property
    def interval(self) -> tuple[float, float] | None:
        """95 % bootstrap percentile interval of the mean; people are drawn where identities are known, else images.

        Of more than 20,000 people (or images) it is the normal interval of the same mean.
        """
        sums, counts = self._clusters()
        if len(sums) <= _MANY:
            return self.bootstrap()
        away = 1.959964 * float(np.sqrt(((sums - self.mean * counts) ** 2).sum()) / counts.sum())
        return (self.mean - away, self.mean + away)

    def bootstrap(self, *, draws: int = _DRAWS, seed: int = 0, level: float = 0.95) -> tuple[float, float] | None:
        """The interval of the mean at another level, number of draws or seed.

        With one identity (or one image) there is nothing to draw, and the interval is None.
        """
        sums, counts = self._clusters()
        if len(sums) < 2:
            return None
        rng = np.random.default_rng(seed)
        rows = (rng.integers(0, len(sums), len(sums)) for _ in range(draws))  # one draw at a time: large sets fit
        means = [sums[row].sum() / counts[row].sum() for row in rows]
        low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
        return (float(low), float(high))

    def _clusters(self) -> tuple[Array, Array]:
        """Sum and count per person, or per image."""
        if self.identities is None:
            return self.values, np.ones(len(self.values))
        _, person = np.unique(self.identities, return_inverse=True)
        return np.bincount(person, self.values).astype(np.float64), np.bincount(person).astype(np.float64)

    def p_value(self, other: Statistic) -> float | None:
        """Chance of a mean difference this large if the two did not differ: paired, signs flipped by person or image.

        Args:
            other: the same images under the control.

        Returns:
            None with one person (or one image), where nothing can be tested. Else two-sided p in (0, 1];
            (1 + count) / (1 + draws) with 9,999 draws, all sign patterns where those are fewer; of more than 20,000
            people the normal approximation of that.

        Raises:
            ValueError: other images.
        """
        from scipy import stats

        if not np.array_equal(self.items, other.items):
            raise ValueError("a paired test needs the same images in the same order")
        sums, counts = Statistic(self.values - other.values, self.items, self.identities)._clusters()
        if len(sums) < 2:
            return None
        if not np.any(sums):
            return 1.0
        whole = counts.sum()
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
