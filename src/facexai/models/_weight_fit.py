"""Finds how to read the names in a file of weights: the prefix to leave out, and other copies that fit as well."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import final

import torch
from torch import Tensor

COUNTER = "num_batches_tracked"  # of batch norms; older files have none, and no result depends on it


@final
@dataclass(frozen=True)
class Fit:
    """Holds one way to read the names of a dictionary of tensors.

    Attributes:
        prefix: what is left out before them.
        onto: what is put in its place.
        names: {name as the network would have it: name in the file}.
        score: how many names agree, and how many of those in shape too; counters of batches aside.
        around: wrappers around the whole network, in its own names.
        rank: places of both prefixes in the order in which the prefixes were given.
        copies: other ways to read the names that fit as well and give other weights.
    """

    prefix: str
    onto: str
    names: Mapping[str, str]
    score: tuple[int, int]
    around: str
    rank: tuple[tuple[int, ...], tuple[int, ...]]
    copies: tuple[Fit, ...] = ()

    def twin(self, tensors: Mapping[str, Tensor]) -> bool:
        """Says whether the tensors are another copy of the network's weights, such as an average of them."""
        return 2 * self.score[1] > len(weights_among(tensors))

    @property
    def described(self) -> str:
        """Says in words which names are taken, and for which part of the network."""
        names = f"without {self.prefix!r}" if self.prefix else "as they are"
        return names + (f", for {self.onto!r} of the network" if self.onto else "")

    @property
    def argument(self) -> list[str]:
        """Returns the value of ``prefixes=`` under which this way is taken."""
        return list(dict.fromkeys((self.prefix, self.onto) if self.onto else (self.prefix,)))


def weights_among(names: Iterable[str]) -> list[str]:
    """Returns the names without the counters of batch norms."""
    return [name for name in names if not name.endswith(COUNTER)]


def fit(
    wanted: Mapping[str, Tensor], tensors: Mapping[str, Tensor], prefixes: Sequence[str], *, strict: bool, ordered: bool
) -> Fit:
    """Returns the way to read the names under which most of them agree; of equal ones the shortest.

    Args:
        wanted: the network's tensors by name.
        tensors: those of the file.
        prefixes: prefixes of the names, each one or several times.
        strict: only a complete set of weights counts as another copy; else one of more than half as many.
        ordered: of several copies the first in the order of ``prefixes`` is taken; else they are listed in ``copies``.
    """
    readings = _readings(wanted, tensors, prefixes)
    best = max(readings, key=lambda reading: (reading.score, -len(reading.prefix) - len(reading.onto)))
    complete = best.score[1] == len(weights_among(wanted))
    if best.score[1] == 0 or (strict and not complete):
        return best
    copies: dict[frozenset[tuple[str, str]], Fit] = {}
    mine = _pairs(best, wanted)
    for reading in readings:
        equal = reading.score == best.score if complete else 2 * reading.score[1] > best.score[1]
        if equal and not (pairs := _pairs(reading, wanted)) & mine:
            copies.setdefault(pairs, reading)
    if ordered:
        return min([best, *copies.values()], key=lambda reading: reading.rank)
    return replace(best, copies=tuple(copy for copy in copies.values() if _differs(best, copy, wanted, tensors)))


def _readings(wanted: Mapping[str, Tensor], tensors: Mapping[str, Tensor], prefixes: Sequence[str]) -> list[Fit]:
    """Returns every combination of a prefix that is left out with one that is put in its place."""
    readings, own, theirs = [], _chains(wanted, prefixes), _chains(tensors, prefixes)
    around = max((chain for chain in own if all(name.startswith(chain) for name in wanted)), key=len)
    for onto in sorted(own):
        for prefix in sorted(theirs):
            names = {onto + n.removeprefix(prefix): n for n in tensors if n.startswith(prefix)}
            both = weights_among(name for name in names if name in wanted)
            alike = sum(tensors[names[name]].shape == wanted[name].shape for name in both)
            rank = (theirs[prefix], own[onto])
            readings.append(Fit(prefix, onto, names, (len(both), alike), around, rank))
    return readings


def _chains(names: Iterable[str], prefixes: Sequence[str]) -> dict[str, tuple[int, ...]]:
    """Returns every row of prefixes with which some name begins, none included, with the places of its prefixes."""
    chains: dict[str, tuple[int, ...]] = {"": (prefixes.index("") if "" in prefixes else len(prefixes),)}
    for name in names:
        chain, places = "", tuple[int, ...]()
        while (
            at := next((i for i, p in enumerate(prefixes) if p and name.startswith(p, len(chain))), None)
        ) is not None:
            chain, places = chain + prefixes[at], (*places, at)
            chains[chain] = places
    return chains


def _pairs(reading: Fit, wanted: Mapping[str, Tensor]) -> frozenset[tuple[str, str]]:
    """Returns which name of the network takes which name of the file."""
    return frozenset((name, reading.names[name]) for name in weights_among(reading.names) if name in wanted)


def _differs(one: Fit, other: Fit, wanted: Mapping[str, Tensor], tensors: Mapping[str, Tensor]) -> bool:
    """Says whether two ways to read the names set other weights, or other values of the same ones."""
    ours, theirs = (dict(_pairs(reading, wanted)) for reading in (one, other))
    if ours.keys() != theirs.keys():
        return True
    return not all(same_values(tensors[ours[name]], tensors[theirs[name]]) for name in ours)


def plain(tensor: Tensor) -> bool:
    """Says whether a tensor holds a number for each place, in memory."""
    return tensor.layout is torch.strided and not tensor.is_meta and not tensor.is_quantized


def same_values(one: Tensor, other: Tensor) -> bool:
    """Says whether two tensors hold the same values; NaN equals NaN."""
    if one.shape != other.shape or one.dtype != other.dtype or not (plain(one) and plain(other)):
        return False
    return bool(((one == other) | ((one != one) & (other != other))).all())  # NaN differs from itself
