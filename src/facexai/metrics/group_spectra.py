"""Spectra of groups of people from sums by person, and what chance does to the distance between them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import final

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

_AT_ONCE = 2**23  # weights held
_LEAST = 1e-4  # amplitude of a band that is matched, of the largest: float32 rounds at a thousandth of that


@final
@dataclass(frozen=True, eq=False)
class PersonSums:
    """Magnitudes summed over each person's rows; a person belongs to one group, so chance moves whole people.

    Attributes:
        values: (I, B) sums of the magnitude of the influence.
        amplitudes: (I, B) sums of the amplitude of the images' bands, or None.
        group: (I,) number of each person's group.
        groups: G, the number of groups.
    """

    values: Array
    amplitudes: Array | None
    group: NDArray[np.int64]
    groups: int

    @classmethod
    def of(
        cls, magnitudes: Array, amplitudes: Array | None, group: NDArray[np.int64], people: Sequence[str]
    ) -> PersonSums:
        """From rows (P, B) of pairs or images.

        Raises:
            ValueError: a person with rows in two groups.
        """
        names, person = np.unique(np.asarray(people, dtype=str), return_inverse=True)
        first = np.full(len(names), -1)
        first[person[::-1]] = group[::-1]
        torn = np.flatnonzero(first[person] != group)
        if len(torn):
            who = str(names[person[torn[0]]])
            raise ValueError(
                f"{who!r} is in two groups: people are what is drawn and permuted, so each belongs to one group"
            )

        def summed(rows: Array) -> Array:
            made = np.zeros((len(names), rows.shape[1]))
            np.add.at(made, person, rows)
            return made

        held = None if amplitudes is None else summed(amplitudes)
        return cls(summed(magnitudes), held, first.astype(np.int64), int(group.max()) + 1)

    def spectra(self, weights: Array, *, matched: bool = False) -> Array:
        """(..., B) share of every band in the influence of people with these weights (..., I).

        Args:
            weights: how often each person counts.
            matched: as if the images had the amplitudes of all people's together; bands that hold next to nothing in
                some group are left out of all.
        """
        sums = weights @ self.values
        if matched:
            assert self.amplitudes is not None
            held, whole = weights @ self.amplitudes, self.amplitudes.sum(0)
            seen = self._seen & (held > 0).all(-2, keepdims=True)
            sums = np.where(seen, sums * whole / np.where(held > 0, held, 1.0), 0.0)
        return _shares(sums)

    @property
    def _seen(self) -> NDArray[np.bool_]:
        """(B,) bands in which every group's images hold enough for influence to be more than rounding."""
        assert self.amplitudes is not None
        groups = self.members() @ self.amplitudes
        enough: NDArray[np.bool_] = (groups > _LEAST * groups.max(-1, keepdims=True)).all(0)
        return enough

    def energy_spectra(self, weights: Array) -> Array:
        """(..., B) share of every band in the amplitude of the images."""
        assert self.amplitudes is not None
        return _shares(weights @ self.amplitudes)

    def members(self, group: NDArray[np.int64] | None = None) -> Array:
        """(G, I) one where a person is in a group."""
        group = self.group if group is None else group
        made: Array = (group[None] == np.arange(self.groups)[:, None]).astype(np.float64)
        return made

    def measured(self, weights: Array) -> dict[str, Array]:
        """(..., B) spectra of people with these weights: ``own``, and with amplitudes ``matched`` and ``images``."""
        found = {"own": self.spectra(weights)}
        if self.amplitudes is not None:
            found |= {"matched": self.spectra(weights, matched=True), "images": self.energy_spectra(weights)}
        return found

    def by_chance(self, draws: int, rng: np.random.Generator) -> dict[str, Array]:
        """(draws, G, B) spectra of groups of the same sizes, of people at random."""
        return self._drawn(draws, lambda count: [self.members(rng.permutation(self.group)) for _ in range(count)])

    def resampled(self, draws: int, rng: np.random.Generator) -> dict[str, Array]:
        """(draws, G, B) spectra of people drawn from their groups with replacement."""
        own = [np.flatnonzero(self.group == g) for g in range(self.groups)]

        def drawn(count: int) -> list[Array]:
            made = []
            for _ in range(count):
                weights = np.zeros((self.groups, len(self.group)))
                for g, people in enumerate(own):
                    weights[g] = np.bincount(rng.choice(people, len(people)), minlength=len(self.group))
                made.append(weights)
            return made

        return self._drawn(draws, drawn)

    def _drawn(self, draws: int, make: Callable[[int], list[Array]]) -> dict[str, Array]:
        """Spectra of weights that are made, used and forgotten in parts: large sets fit."""
        step = max(1, _AT_ONCE // (self.groups * len(self.group)))
        parts = [self.measured(np.stack(make(min(step, draws - at)))) for at in range(0, draws, step)]
        return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def distances(spectra: Array) -> Array:
    """Total variation (..., G * (G - 1) / 2) between spectra (..., G, B) of all pairs of groups, from 0 to 1.

    >>> distances(np.array([[1.0, 0.0], [0.5, 0.5]]))
    array([0.5])
    """
    pairs = combinations(range(spectra.shape[-2]), 2)
    found: Array = np.stack([np.abs(spectra[..., i, :] - spectra[..., j, :]).sum(-1) / 2 for i, j in pairs], -1)
    return found


def _shares(sums: Array) -> Array:
    whole = sums.sum(-1, keepdims=True)
    made: Array = sums / np.where(whole > 0, whole, 1.0)
    return made
