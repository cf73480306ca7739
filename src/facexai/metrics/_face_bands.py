"""Influence of bands on any pair of faces, from the embeddings of the faces with and without each band."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal, final

import numpy as np
from numpy.typing import NDArray

from facexai.metrics.group_spectra import PersonSums, divisions, shares

Array = NDArray[np.float64]
Index = NDArray[np.int64]

_AT_ONCE = 2**24  # pairs of all permutations that are looked up together


@final
@dataclass(frozen=True, eq=False)
class FaceBands:
    """Unit embeddings of n faces as they are and without each of their bands.

    Attributes:
        units: (n, D) float64.
        without: (n, b, D) of the faces without band ``cells[k]``.
        cells: (b,) places of those bands among all B; the others hold no frequency.
        energies: (n, B) mean squared pixel value that each band holds.
        masked: the face of a pair whose band is removed.
    """

    units: Array
    without: Array
    cells: Index
    energies: Array
    masked: Literal["first", "second", "both"]

    def influence(self, pairs: Index) -> Array:
        """Returns (P, B) raw influence of each band on the cosine of pairs (P, 2) of faces."""
        result = np.zeros((len(pairs), self.energies.shape[1]))
        for k, cell in enumerate(self.cells.tolist()):
            result[:, cell] = self._table(k)[pairs[:, 0], pairs[:, 1]]
        return result

    def scores(self, pairs: Index) -> Array:
        """Returns (P,) cosines of pairs (P, 2)."""
        result: Array = self._cosines[pairs[:, 0], pairs[:, 1]]
        return result

    def held_energy(self, pairs: Index) -> Array:
        """Returns (P, B) mean energy of the faces of each pair that lose the bands."""
        sides = {"first": (0,), "second": (1,), "both": (0, 1)}[self.masked]
        mean: Array = np.mean([self.energies[pairs[:, side]] for side in sides], axis=0)
        return mean

    @cached_property
    def _cosines(self) -> Array:
        return self.units @ self.units.T

    def _table(self, k: int) -> Array:
        """Returns (n, n) influence of a band on every pair of faces."""
        left = self.without[:, k]
        without = {"first": (left, self.units), "second": (self.units, left), "both": (left, left)}[self.masked]
        result: Array = self._cosines - without[0] @ without[1].T
        return result

    def by_chance(
        self, pairs: Index, group: Index, sums: PersonSums, people: People, draws: int, rng: np.random.Generator
    ) -> dict[str, Array]:
        """Returns (draws, G, B) spectra of groups whose people changed places with people of as many photos.

        Args:
            pairs: (P, 2) faces.
            group: (P,) number of the group of each pair, which is that of the places of its people.
            sums: of the pairs as they are, for the energy-matched spectra.
            people: the people in the faces, and their groups.
            draws: number of permutations.
            rng: source of them.
        """
        member = np.equal.outer(group, np.arange(sums.groups)).astype(np.float64)  # (P, G)
        bands, step, parts = self.energies.shape[1], max(1, _AT_ONCE // len(pairs)), []
        for at in range(0, draws, step):
            moved = np.stack([people.permuted(rng) for _ in range(min(step, draws - at))])
            first, second = moved[:, pairs[:, 0]], moved[:, pairs[:, 1]]  # (draws, P)
            own, held_energy = (np.zeros((len(moved), sums.groups, bands)) for _ in range(2))
            for k, cell in enumerate(self.cells.tolist()):
                own[..., cell] = np.abs(self._table(k))[first, second] @ member
            for cell in range(bands):
                energy = {"first": first, "second": second}.get(self.masked)
                column = self.energies[:, cell]
                both = (column[first] + column[second]) / 2 if energy is None else column[energy]
                held_energy[..., cell] = np.sqrt(both) @ member
            parts.append(
                {"own": shares(own), "matched": shares(sums.matched(own, held_energy)), "images": shares(held_energy)}
            )
        return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


@final
@dataclass(frozen=True, eq=False)
class People:
    """The people in n faces, and their groups.

    Attributes:
        photos: the faces of each person.
        group: (I,) number of each person's group.
    """

    photos: Sequence[Index]
    group: Index

    @classmethod
    def of(cls, names: Sequence[str], groups: Index) -> People:
        """Builds the sums from the name of the person in each face and the number of their group (n,)."""
        _, first, number = np.unique(np.asarray(names), return_index=True, return_inverse=True)
        photos = [np.flatnonzero(number == person) for person in range(len(first))]
        return cls(photos, groups[first])

    @cached_property
    def _alike(self) -> Mapping[int, Index]:
        """Groups people by their number of photos, among which permutations exchange them."""
        counts = np.array([len(own) for own in self.photos])
        return {int(count): np.flatnonzero(counts == count) for count in np.unique(counts)}

    @property
    def divisions(self) -> int:
        """Returns the number of ways in which people with as many photos can be divided into the groups."""
        result = 1
        for alike in self._alike.values():
            result *= divisions(np.bincount(self.group[alike]))
        return result

    def permuted(self, rng: np.random.Generator) -> Index:
        """Returns (n,) the face that replaces each face when people are exchanged with all of their photos."""
        result = np.empty(sum(map(len, self.photos)), dtype=np.int64)
        for alike in self._alike.values():
            for person, other in zip(alike.tolist(), rng.permutation(alike).tolist(), strict=True):
                result[self.photos[person]] = self.photos[other]
        return result
