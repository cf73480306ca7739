"""Functions that comparisons of groups share: checked rows, both people of each, spectra, distances and their tests."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from types import MappingProxyType
from typing import Any, NamedTuple, final

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from facexai.functional._labels import labels_of
from facexai.metrics._bias_result import Bias, Distance, Rates
from facexai.metrics._identities import is_unknown_name, pairs_of, people_of
from facexai.metrics.group_spectra import PersonSums, distances
from facexai.metrics.pair_subject import both_people
from facexai.metrics.statistic import INTERVALS

Array = NDArray[np.float64]
BothPeople = tuple[tuple[str, ...], tuple[str, ...]]

_INTERVALS = {
    True: "95 %, bootstrap of people within groups, w_i * w_j per pair, scaled to the dyadic-robust standard error",
    False: "95 %, bootstrap of people within groups",
}
_AGAIN = ", threshold found again in draws of people"
FEWEST_DIVISIONS = 40
"""Of fewer, none can give p <= .05 where groups have equal sizes: a division and its mirror image are alike."""
UNNAMED = "identities name one person of each pair only, and a pair depends on both; pass partners=, the second person"


class GroupRates(NamedTuple):
    """Errors of groups.

    Attributes:
        threshold: over all groups.
        rates: of each group.
        recipe: how many decisions the gap of the threshold moved, and how many pairs are within 1e-6 of it.
    """

    threshold: float | None = None
    rates: dict[str, Rates] | None = None
    recipe: Mapping[str, int] = MappingProxyType({})


def people_of_rows(count: int, identities: Any, partners: Any, same: Any, pairs: bool) -> tuple[BothPeople, str | None]:
    """Returns both people of each row, and why nothing can be tested, if so."""
    numbers = range(count)
    if not pairs:
        own = people_of([None] * count if identities is None else identities, numbers, "rows")
        assert own is not None
        return (own, own), None
    if same is None and partners is not None:
        first, second = pairs_of(identities, partners, numbers, "rows")
        assert first is not None
        assert second is not None
        return (first, second), None
    labels = np.zeros(count, dtype=bool) if same is None else labels_of(same, count, "same", "rows")
    named = people_of(identities, numbers, "rows")
    unnamed = partners is None and named is not None and not labels.all() and not all(map(is_unknown_name, named))
    if unnamed:
        partners = [None] * count
    return both_people(identities, partners, labels, numbers, "rows"), UNNAMED if unnamed else None


@final
@dataclass(frozen=True, eq=False)
class Rows:
    """Checked rows of groups.

    Attributes:
        names: of the G groups.
        group: (P,) number of each row's.
        values: (P, B) raw influence.
        people: both people of each row.
        sums: of each pair of people.
    """

    names: list[str]
    group: NDArray[np.int64]
    values: Array
    people: BothPeople
    sums: PersonSums


def compared(
    rows: Rows,
    chance: Mapping[str, Array] | None,
    *,
    rates: GroupRates,
    draws: int,
    rng: np.random.Generator,
    edges: Array | None,
    face: float | None,
    recipe: Mapping[str, Any],
    reason: str | None,
) -> Bias:
    """Returns the answer, from the spectra (draws, G, B) of groups by chance, if there are any, and bootstrap draws."""
    names, group, sums = rows.names, rows.group, rows.sums
    drawn, own = sums.resampled(draws, rng), sums.measured(sums.members())
    null = None if chance is None else {kind: distances(chance[kind]) for kind in own}
    apart = {
        kind: _distances(names, distances(own[kind]), None if null is None else null[kind], distances(drawn[kind]))
        for kind in own
    }
    return Bias(
        groups=tuple(names),
        spectra=own["own"],
        intervals=np.quantile(drawn["own"], [0.025, 0.975], axis=0),
        signed=np.stack([rows.values[group == g].mean(0) for g in range(len(names))]),
        edges=edges,
        face=face,
        rows=dict(zip(names, np.bincount(group).tolist(), strict=True)),
        people=dict(zip(names, np.bincount(sums.group).tolist(), strict=True)),
        distances=apart["own"],
        matched=apart.get("matched"),
        images=apart.get("images"),
        p_value=None if null is None else _p(null["own"].max(-1), distances(own["own"]).max(-1)),
        rates=rates.rates,
        threshold=rates.threshold,
        recipe={**recipe, **rates.recipe, "intervals": _INTERVALS[sums.are_pairs], "rates": INTERVALS[True] + _AGAIN},
        reason=reason,
    )


def summed(
    values: Array, groups: Sequence[str], people: BothPeople, energies: Any
) -> tuple[list[str], NDArray[np.int64], PersonSums]:
    """Returns names of the groups, the group of each row, and the sums of each person; refuses what
    cannot be compared.
    """
    odd = [i for i, name in enumerate(groups) if not isinstance(name, str | int) or name == ""]
    if odd:
        raise ValueError(
            f"expected a name for the group of every row, row {odd[0]} has {groups[odd[0]]!r}; leave it out"
        )
    labels, group = np.unique(np.asarray(groups, dtype=str), return_inverse=True)
    names: list[str] = labels.tolist()
    if len(group) != len(values):
        raise ValueError(f"expected a group for each of the {len(values)} rows, got {len(group)}")
    if len(names) < 2:
        raise ValueError(f"expected at least two groups, got {names}")
    energy_rows = None if energies is None else rows_of(energies, "energies")
    if energy_rows is not None and (energy_rows.shape != values.shape or (energy_rows < 0).any()):
        raise ValueError(
            f"expected energies of shape {values.shape}, none negative, got {energy_rows.shape}, least "
            f"{energy_rows.min()}"
        )
    for g, name in enumerate(names):
        if not values[group == g].any():
            raise ValueError(f"no band has any influence in group {name!r}: the network does not see these images")
        if energy_rows is not None and not energy_rows[group == g].any():
            raise ValueError(
                f"the images of group {name!r} hold no energy in any band; give energies of the same images"
            )
    amplitudes = None if energy_rows is None else np.sqrt(energy_rows)
    sums = PersonSums.of(np.abs(values), amplitudes, group.astype(np.int64), *people)
    count = np.bincount(sums.group, minlength=len(names))
    if count.min() < 2:
        few = names[int(count.argmin())]
        raise ValueError(f"expected at least two people in each group, {few!r} has {count.min()}")
    return names, group.astype(np.int64), sums


def check_draws(draws: int, seed: int) -> None:
    if not isinstance(draws, int) or draws < 1 or not isinstance(seed, int) or seed < 0:
        raise ValueError(f"expected draws of at least 1 and a seed of at least 0, got {draws!r} and {seed!r}")


def rows_of(values: Any, what: str) -> Array:
    rows: NDArray[Any] = values.detach().cpu().numpy() if isinstance(values, Tensor) else np.asarray(values)
    rows = rows.reshape(len(rows), -1).astype(np.float64) if rows.ndim in (2, 3) else rows
    if rows.ndim != 2 or rows.size == 0:
        raise ValueError(f"expected {what} (P, B), got shape {rows.shape}")
    if not np.isfinite(rows).all():
        raise ValueError(f"expected finite {what}, got NaN or infinity")
    return np.asarray(rows)


def _distances(names: Sequence[str], raw: Array, null: Array | None, drawn: Array) -> tuple[Distance, ...]:
    """Returns the distance of every pair of groups, its permutation distances and its bootstrap distances."""
    result = []
    for k, pair in enumerate(combinations(names, 2)):
        if null is None:
            result.append(Distance(pair, float(raw[k]), None, None, None))
            continue
        value, centre = float(raw[k] - null[:, k].mean()), float(drawn[:, k].mean())
        low, high = (value + float(q) - centre for q in np.quantile(drawn[:, k], [0.025, 0.975]))
        p = _p(null[:, k], raw[k])
        result.append(Distance(pair, float(raw[k]), float(null[:, k].mean()), (low, high), p))
    return tuple(result)


def _p(null: Array, value: Any) -> float:
    return float((1 + (null >= value - 1e-12).sum()) / (1 + len(null)))
