"""Means over pairs of people: each pair depends on two people, and pairs that share a person are not independent."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import final

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Index = NDArray[np.int64]

_LEVEL = 0.95


@final
@dataclass(frozen=True)
class Error:
    """Estimates the uncertainty of a mean over pairs of people.

    Attributes:
        standard: the standard error.
        degrees: degrees of freedom of Student's t.
    """

    standard: float
    degrees: int

    def away(self) -> float:
        """Returns half the width of the 95 % interval."""
        from scipy import stats

        return float(stats.t.ppf((1 + _LEVEL) / 2, self.degrees) * self.standard)

    def p_value(self, mean: float) -> float:
        """Returns the two-sided p-value of the mean under a true mean of 0."""
        from scipy import stats

        return float(2 * stats.t.sf(abs(mean) / self.standard, self.degrees))


@final
@dataclass(frozen=True, eq=False)
class Dyads:
    """The two people of each of P rows; both are the same person in a pair of one person, or a row about one person.

    Attributes:
        first, second: (P,) numbers of people, 0 to ``people - 1``, each of whom is in some row.
        people: number of people.
    """

    first: Index
    second: Index
    people: int

    @classmethod
    def of(cls, first: Sequence[str] | Index, second: Sequence[str] | Index) -> Dyads:
        """Returns the rows of people by name (P,) and (P,); people are numbered in the order of their names."""
        names, number = np.unique(np.concatenate([np.asarray(first), np.asarray(second)]), return_inverse=True)
        front, back = np.split(number.ravel().astype(np.int64), 2)
        return cls(front, back, len(names))

    def __len__(self) -> int:
        return len(self.first)

    def __getitem__(self, rows: NDArray[np.bool_] | Index) -> Dyads:
        """Selects rows, with the people who are in them."""
        return Dyads.of(self.first[rows], self.second[rows])

    @cached_property
    def dyad(self) -> Index:
        """Returns (P,) the number of each row's unordered pair of people: (i, j) and (j, i) have one number."""
        low, high = np.minimum(self.first, self.second), np.maximum(self.first, self.second)
        return np.unique(low * self.people + high, return_inverse=True)[1].ravel().astype(np.int64)

    def variance(self, residuals: Array) -> float:
        """Returns the dyadic-robust variance of a mean, which can be 0 or negative with few people.

        ``V = [sum_i S_i^2 - sum_{i<j} R_ij^2] / P^2``. S_i is the sum of the residuals of the rows with person i, where
        a pair of one person counts once; R_ij is the sum over the rows of the pair {i, j}, in both directions. That is
        the sum of the products of residuals over all pairs of rows that share a person, each counted once.

        Args:
            residuals: (P,) values minus their mean.

        Source: Aronow, Samii and Assenova 2015, Political Analysis 23(4), arXiv:1312.3398, for a mean.
        """
        two = self.first != self.second
        sums = np.bincount(self.first, residuals, self.people)
        sums += np.bincount(self.second[two], residuals[two], self.people)
        return float(((sums**2).sum() - (np.bincount(self.dyad[two], residuals[two]) ** 2).sum()) / len(self) ** 2)

    def error(self, residuals: Array) -> Error:
        """Returns the standard error of a mean and its degrees of freedom.

        The variance is the dyadic-robust one times N / (N - 1), N the number of people, for residuals are taken from
        the mean of the same people, with N - 1 degrees of freedom. It varies much where people have no effect of their
        own, and can come out negative. Its floor is the variance if different pairs of people were independent, with
        their number minus 1 as degrees of freedom: pairs that share a person are not independent.

        Args:
            residuals: (P,) values minus their mean.
        """
        sums = np.bincount(self.dyad, residuals)
        robust = self.variance(residuals) * self.people / max(1, self.people - 1)
        floor = float((sums**2).sum()) / len(self) ** 2
        if robust >= floor:
            return Error(float(np.sqrt(robust)), self.people - 1)
        return Error(float(np.sqrt(floor)), max(len(sums), self.people) - 1)

    def independent(self) -> int:
        """Returns the number of rows that share no person, picked one after the other in their order."""
        used, count = np.zeros(self.people, dtype=bool), 0
        for i, j in zip(self.first.tolist(), self.second.tolist(), strict=True):
            if not (used[i] or used[j]):
                used[i] = used[j] = True
                count += 1
        return count

    def unseen(self) -> float:
        """Returns the one-sided 95 % bound of the share of pairs that differ if all observed pairs are alike.

        It is ``1 - .05^(1/m)``, about 3 / m (the rule of three), where m pairs share no person.
        """
        return float(1 - (1 - _LEVEL) ** (1 / self.independent()))

    def weights(self, counts: Array) -> Array:
        """Returns the weights (..., P) of rows where people are drawn so many times (..., people).

        A pair of two people weighs the product of theirs, a row about one person that person's, not its square.
        """
        front, back = counts[..., self.first], counts[..., self.second]
        return np.where(self.first == self.second, front, front * back)

    def drawn(self, draws: int, seed: int) -> Iterator[Array]:
        """Yields weights (P,) of rows, of people drawn with replacement; draws that leave no row are drawn again."""
        rng = np.random.default_rng(seed)
        for _ in range(draws):
            while True:
                counts = np.bincount(rng.integers(0, self.people, self.people), minlength=self.people)
                if (row := self.weights(counts.astype(np.float64))).any():
                    break
            yield row

    def components(self) -> Index:
        """Returns the number of the component of each person (people,): people who are linked by pairs share it."""
        from scipy.sparse import coo_array
        from scipy.sparse.csgraph import connected_components

        links = coo_array((np.ones(len(self)), (self.first, self.second)), shape=(self.people, self.people))
        labels: Index = connected_components(links, directed=False)[1].astype(np.int64)
        return labels
