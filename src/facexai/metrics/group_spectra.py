"""Spectra of groups of people from sums by person, and what chance does to the distance between them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import combinations
from math import comb
from typing import final

import numpy as np
from numpy.typing import NDArray

from facexai.functional._dyads import Dyads

Array = NDArray[np.float64]

_AT_ONCE = 2**23  # weights held
_LEAST = 1e-4  # amplitude of a band that is matched, of the largest: float32 rounds at a thousandth of that


@final
@dataclass(frozen=True, eq=False)
class PersonSums:
    """Magnitudes summed over the rows of each pair of people, or of each person where rows are about one.

    A person belongs to one group, and so does a pair; permutations move people together with all people whom
    pairs link to them.

    Attributes:
        values: (D, B) sums of the magnitude of the influence.
        amplitudes: (D, B) sums of the amplitude of the images' bands, or None.
        dyads: the two people of each of the D sums, the same person twice where rows are about one.
        group: (I,) number of each person's group.
        groups: G, the number of groups.
    """

    values: Array
    amplitudes: Array | None
    dyads: Dyads
    group: NDArray[np.int64]
    groups: int

    @classmethod
    def of(
        cls,
        magnitudes: Array,
        amplitudes: Array | None,
        group: NDArray[np.int64],
        people: Sequence[str],
        partners: Sequence[str] | None = None,
    ) -> PersonSums:
        """Builds the sums from rows (P, B) of pairs or images.

        Raises:
            ValueError: a person with rows in two groups.
        """
        rows = Dyads.of(people, people if partners is None else partners)
        person, groups = np.concatenate([rows.first, rows.second]), np.concatenate([group, group])
        first = np.full(rows.people, -1)
        first[person[::-1]] = groups[::-1]
        torn = np.flatnonzero(first[person] != groups)
        if len(torn):
            who = str([*people, *(partners or people)][torn[0]])
            raise ValueError(
                f"{who!r} is in two groups: people are what is drawn and permuted, so each belongs to one group"
            )
        at = np.unique(rows.dyad, return_index=True)[1]

        def summed(table: Array) -> Array:
            result = np.zeros((len(at), table.shape[1]))
            np.add.at(result, rows.dyad, table)
            return result

        held = None if amplitudes is None else summed(amplitudes)
        dyads = Dyads(rows.first[at], rows.second[at], rows.people)
        return cls(summed(magnitudes), held, dyads, first.astype(np.int64), int(group.max()) + 1)

    @property
    def are_pairs(self) -> bool:
        """Returns whether some row is about two people."""
        return bool((self.dyads.first != self.dyads.second).any())

    @cached_property
    def component(self) -> NDArray[np.int64]:
        """Returns (I,) number of the component of each person: people who are linked by pairs share it."""
        return self.dyads.components()

    @cached_property
    def _blocks(self) -> NDArray[np.int64]:
        """Returns (C,) number of each component's group."""
        return self.group[np.unique(self.component, return_index=True)[1]]

    @property
    def divisions(self) -> int:
        """Returns the number of ways in which components of equal size can be divided into the groups."""
        return divisions(np.bincount(self._blocks, minlength=self.groups))

    def spectra(self, weights: Array, *, matched: bool = False) -> Array:
        """Returns (..., B) share of every band in the influence of sums with these weights (..., D).

        Args:
            weights: how often each sum counts.
            matched: as if the images had the amplitudes of all people's together; bands that hold next to nothing in
                some group are left out of all.
        """
        sums = weights @ self.values
        return shares(
            self.matched(sums, weights @ self.amplitudes) if matched and self.amplitudes is not None else sums
        )

    def matched(self, sums: Array, held: Array) -> Array:
        """Returns (..., G, B) sums of influence over images with these amplitudes, as if all groups had
        those of all images.
        """
        assert self.amplitudes is not None
        seen = self._seen & (held > 0).all(-2, keepdims=True)
        return np.where(seen, sums * self.amplitudes.sum(0) / np.where(held > 0, held, 1.0), 0.0)

    @property
    def _seen(self) -> NDArray[np.bool_]:
        """Returns (B,) bands in which every group's images hold enough for influence to be more than rounding."""
        assert self.amplitudes is not None
        groups = self.members() @ self.amplitudes
        enough: NDArray[np.bool_] = (groups > _LEAST * groups.max(-1, keepdims=True)).all(0)
        return enough

    def energy_spectra(self, weights: Array) -> Array:
        """Returns (..., B) share of every band in the amplitude of the images."""
        assert self.amplitudes is not None
        return shares(weights @ self.amplitudes)

    def members(self, group: NDArray[np.int64] | None = None) -> Array:
        """Returns (G, D) one where the people of a sum are in a group; (I,) people's groups, by default their own."""
        group = (self.group if group is None else group)[self.dyads.first]
        result: Array = (group[None] == np.arange(self.groups)[:, None]).astype(np.float64)
        return result

    def measured(self, weights: Array) -> dict[str, Array]:
        """Returns (..., B) spectra of sums with these weights: ``own``, and with amplitudes
        ``matched`` and ``images``.
        """
        result = {"own": self.spectra(weights)}
        if self.amplitudes is not None:
            result |= {"matched": self.spectra(weights, matched=True), "images": self.energy_spectra(weights)}
        return result

    def by_chance(self, draws: int, rng: np.random.Generator) -> dict[str, Array]:
        """Returns (draws, G, B) spectra of groups of as many components at random; a person is one where
        rows are about one.
        """

        def drawn(count: int) -> list[Array]:
            return [self.members(rng.permutation(self._blocks)[self.component]) for _ in range(count)]

        return self._drawn(draws, drawn)

    def resampled(self, draws: int, rng: np.random.Generator) -> dict[str, Array]:
        """Returns (draws, G, B) spectra of people drawn from their groups with replacement.

        A pair of two people weighs the product of how often each was drawn. That varies more than the mean over pairs
        does where pairs share few people, so the spread of a group's spectrum about its mean over draws is scaled to
        the dyadic-robust standard error, over all bands together.
        """
        result = self._resampled(draws, rng)
        if not self.are_pairs:
            return result
        spread = result["own"] - result["own"].mean(0)
        scale = np.sqrt(self._variances() / np.maximum((spread**2).mean(0).sum(-1), 1e-300))[:, None]
        return {kind: rows.mean(0) + scale * (rows - rows.mean(0)) for kind, rows in result.items()}

    def _variances(self) -> Array:
        """Returns (G,) dyadic-robust variance of each group's spectrum, summed over bands."""
        result = []
        for own in self.members().astype(bool):
            dyads, values = self.dyads[own], self.values[own]
            residuals = (values - values.sum(1, keepdims=True) * shares(values.sum(0))) / values.sum()
            result.append(sum((len(dyads) * dyads.error(column).standard) ** 2 for column in residuals.T))
        return np.array(result)

    def _resampled(self, draws: int, rng: np.random.Generator) -> dict[str, Array]:
        own = [np.flatnonzero(self.group == g) for g in range(self.groups)]

        def one(people: NDArray[np.int64]) -> Array:
            while True:  # sums are left of each draw
                counts = np.bincount(rng.choice(people, len(people)), minlength=len(self.group))
                if (row := self.dyads.weights(counts.astype(np.float64))).any():
                    return row

        def drawn(count: int) -> list[Array]:
            return [np.stack([one(people) for people in own]) for _ in range(count)]

        return self._drawn(draws, drawn)

    def _drawn(self, draws: int, make: Callable[[int], list[Array]]) -> dict[str, Array]:
        """Returns spectra of weights that are made, used and forgotten in parts: large sets fit."""
        step = max(1, _AT_ONCE // (self.groups * len(self.values)))
        parts = [self.measured(np.stack(make(min(step, draws - at)))) for at in range(0, draws, step)]
        return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def divisions(counts: NDArray[np.int64]) -> int:
    """Returns the number of ways to divide as many things into groups of these sizes (G,).

    >>> divisions(np.array([2, 2]))
    6
    """
    left, result = int(counts.sum()), 1
    for count in counts.tolist():
        result *= comb(left, count)
        left -= count
    return result


def distances(spectra: Array) -> Array:
    """Computes the total variation (..., G * (G - 1) / 2) between spectra (..., G, B) of all pairs of
    groups, from 0 to 1.

    >>> distances(np.array([[1.0, 0.0], [0.5, 0.5]]))
    array([0.5])
    """
    pairs = combinations(range(spectra.shape[-2]), 2)
    result: Array = np.stack([np.abs(spectra[..., i, :] - spectra[..., j, :]).sum(-1) / 2 for i, j in pairs], -1)
    return result


def shares(sums: Array) -> Array:
    whole = sums.sum(-1, keepdims=True)
    result: Array = sums / np.where(whole > 0, whole, 1.0)
    return result
