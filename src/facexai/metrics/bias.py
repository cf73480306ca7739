"""Do groups of people get decided by other bands of frequencies, and does it go with other error rates?"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from facexai.functional._labels import labels_of
from facexai.functional.verification import labelled_scores
from facexai.metrics._identities import people_of
from facexai.metrics.bias_answer import Bias, Distance, Rates
from facexai.metrics.group_spectra import PersonSums, distances
from facexai.metrics.verification import Rule, threshold
from facexai.results import FrequencyHeat

Array = NDArray[np.float64]


def bias(
    influence: FrequencyHeat | Tensor | Any,
    groups: Sequence[str],
    *,
    identities: Sequence[str | None] | None = None,
    energies: Any = None,
    scores: Any = None,
    same: Any = None,
    rule: Rule = "eer",
    draws: int = 999,
    seed: int = 0,
) -> Bias:
    """Compare the bands that decide about groups of people.

    A group's spectrum is the mean magnitude of the influence over its rows, divided by its sum over bands: after
    averaging, so that a row with little influence does not count as much as one with a lot. Groups are compared by the
    total variation between spectra. Rows of one person are alike, so permutations and bootstrap move people.

    Args:
        influence: a :class:`~facexai.FrequencyHeat`, or (P, B) raw influence. Sectors count as bands of their own.
        groups: (P,) group of each row; at least two. For labels of images see :func:`pair_groups`.
        identities: (P,) person whose image lost the bands, None where unknown; see :meth:`Statistic.of`. A person
            belongs to one group. Default: every row is a person of its own.
        energies: (P, B) that the bands of the images hold, for the energy-matched control; taken from a FrequencyHeat.
        scores: (P,) cosines; taken from a FrequencyHeat of pairs.
        same: (P,) True for pairs of one person, for the error rates; labels as in :func:`facexai.metrics.roc`.
        rule: of the threshold, over all groups: see :func:`threshold`.
        draws: permutations, and bootstrap draws.
        seed: of both.

    Returns:
        :class:`Bias`. Energy-matched: every group's mean magnitude is divided by the mean amplitude (root of the
        energy) that its images have in the band, times that of all images. Where groups differ in their pictures alone,
        this distance shrinks; it vanishes where influence is proportional to amplitude, which a network is to first
        order only, and only in the image that loses the band.

    Raises:
        ValueError: lengths that differ, None for a group, one group, a group of fewer than two people, a person in two
            groups, influence that is not finite, or zero everywhere in a group, energies that are negative or zero
            everywhere in a group, labels of other values, labelled scores that are not finite.

    Source: spectra and total variation after Huber et al. 2025, arXiv:2501.16896, reconstructed; the null, the
    intervals, the matching and the tests are ours.

    >>> rng = np.random.default_rng(0)
    >>> rows = rng.random((40, 6))
    >>> rows[20:, 4] += 1
    >>> found = bias(rows, ["a"] * 20 + ["b"] * 20, draws=99)
    >>> found.p_value, found.distances[0].value > 0.1
    (0.01, True)
    """
    heat = influence if isinstance(influence, FrequencyHeat) else None
    if heat is not None:
        energies = heat.energies if energies is None else energies
        scores = heat.scores if scores is None and heat.targets is None else scores
    values = _rows(heat.influence if heat is not None else influence, "influence")
    _check_draws(draws, seed)
    names, group, sums = _summed(values, groups, identities, energies)
    limit, rates = _rates(scores, same, rule, names, group)
    count = np.bincount(sums.group)
    rng = np.random.default_rng(seed)
    chance, drawn, own = sums.by_chance(draws, rng), sums.resampled(draws, rng), sums.measured(sums.members())
    apart = {kind: _distances(names, *(distances(spectra[kind]) for spectra in (own, chance, drawn))) for kind in own}
    raw, null = distances(own["own"]), distances(chance["own"])
    flat = heat is not None and heat.influence.ndim == 2
    return Bias(
        groups=tuple(names),
        spectra=own["own"],
        intervals=np.quantile(drawn["own"], [0.025, 0.975], axis=0),
        signed=np.stack([values[group == g].mean(0) for g in range(len(names))]),
        edges=heat.edges.cpu().numpy() if heat is not None and flat else None,
        face=heat.face if heat is not None else None,
        rows=dict(zip(names, np.bincount(group).tolist(), strict=True)),
        people=dict(zip(names, count.tolist(), strict=True)),
        distances=apart["own"],
        matched=apart.get("matched"),
        images=apart.get("images"),
        p_value=_p(null.max(-1), raw.max(-1)),
        rates=rates,
        threshold=limit,
        recipe={"draws": draws, "seed": seed, "rule": str(rule), **({} if heat is None else dict(heat.recipe))},
    )


def pair_groups(labels: Sequence[str], index: Any) -> list[str | None]:
    """The group of each pair from labels of images: that of both, or None where they differ.

    >>> pair_groups(["a", "a", "b"], [(0, 1), (1, 2)])
    ['a', None]
    """
    pairs = np.asarray(index)
    if pairs.ndim != 2 or pairs.shape[1] != 2 or (len(pairs) and not 0 <= pairs.min() <= pairs.max() < len(labels)):
        raise ValueError(f"expected pairs (P, 2) of images below {len(labels)}, got shape {pairs.shape}")
    return [labels[i] if labels[i] == labels[j] else None for i, j in pairs.tolist()]


def rank_correlation(distances: Sequence[float], gaps: Sequence[float]) -> tuple[float, float]:
    """Spearman's correlation over models between spectral distance and performance gap, and its p-value.

    Args:
        distances, gaps: one of each per model, at least six: fewer cannot be told from chance.

    Returns:
        correlation, and the two-sided p-value over permutations: all of them up to eight models, else 9,999.

    Raises:
        ValueError: fewer than six models, lengths that differ, or values that do not vary.

    >>> rho, p = rank_correlation([1, 2, 3, 4, 5, 6], [1, 2, 3, 4, 6, 5])
    >>> round(rho, 3), p < 0.05
    (0.943, True)
    """
    from scipy import stats

    a, b = np.asarray(distances, dtype=np.float64), np.asarray(gaps, dtype=np.float64)
    if a.shape != b.shape or a.ndim != 1 or len(a) < 6:
        raise ValueError(f"expected a distance and a gap for each of at least six models, got {a.shape} and {b.shape}")
    if not (np.isfinite(a).all() and np.isfinite(b).all() and np.ptp(a) > 0 and np.ptp(b) > 0):
        raise ValueError("expected finite distances and gaps that differ between models")
    other = stats.rankdata(b)

    def correlation(x: Array) -> float:
        return float(np.corrcoef(stats.rankdata(x), other)[0, 1])

    resamples = np.inf if len(a) <= 8 else 9999
    test = stats.permutation_test(
        (a,), correlation, permutation_type="pairings", n_resamples=resamples, rng=np.random.default_rng(0)
    )
    return float(test.statistic), float(test.pvalue)


def _summed(
    values: Array, groups: Sequence[str], identities: Sequence[str | None] | None, energies: Any
) -> tuple[list[str], NDArray[np.int64], PersonSums]:
    """Names of the groups, the group of each row, and the sums of each person; refuses what cannot be compared."""
    odd = [i for i, name in enumerate(groups) if not isinstance(name, str | int) or name == ""]
    if odd:
        raise ValueError(
            f"expected a name for the group of every row, row {odd[0]} has {groups[odd[0]]!r}; leave it out"
        )
    labels, group = np.unique(np.asarray(groups, dtype=str), return_inverse=True)
    names: list[str] = labels.tolist()
    if len(group) != len(values):
        raise ValueError(f"expected a group for each of the {len(values)} rows, got {len(group)}")
    people = people_of([None] * len(values) if identities is None else identities, range(len(values)), "rows")
    assert people is not None
    if len(names) < 2:
        raise ValueError(f"expected at least two groups, got {names}")
    held = None if energies is None else _rows(energies, "energies")
    if held is not None and (held.shape != values.shape or (held < 0).any()):
        raise ValueError(
            f"expected energies of shape {values.shape}, none negative, got {held.shape}, least {held.min()}"
        )
    for g, name in enumerate(names):
        if not values[group == g].any():
            raise ValueError(f"no band has any influence in group {name!r}: the network does not see these images")
        if held is not None and not held[group == g].any():
            raise ValueError(
                f"the images of group {name!r} hold no energy in any band; give energies of the same images"
            )
    amplitudes = None if held is None else np.sqrt(held)
    sums = PersonSums.of(np.abs(values), amplitudes, group.astype(np.int64), people)
    count = np.bincount(sums.group, minlength=len(names))
    if count.min() < 2:
        few = names[int(count.argmin())]
        raise ValueError(f"expected at least two people in each group, {few!r} has {count.min()}")
    return names, group.astype(np.int64), sums


def check_groups(
    groups: Sequence[str], identities: Sequence[str | None] | None, same: Any, rule: Rule, draws: int, seed: int
) -> None:
    """Refuse before any network pass what :func:`bias` would refuse after all of them.

    Raises:
        ValueError: as :func:`bias`.
    """
    _check_draws(draws, seed)
    _summed(np.ones((len(groups), 1)), groups, identities, None)
    if same is not None:
        labels = labels_of(same, len(groups), "same")
        threshold(labels, labels, rule)


def _check_draws(draws: int, seed: int) -> None:
    if not isinstance(draws, int) or draws < 1 or not isinstance(seed, int) or seed < 0:
        raise ValueError(f"expected draws of at least 1 and a seed of at least 0, got {draws!r} and {seed!r}")


def _rows(values: Any, what: str) -> Array:
    rows = values.detach().cpu().numpy() if isinstance(values, Tensor) else np.asarray(values)
    rows = rows.reshape(len(rows), -1).astype(np.float64) if rows.ndim in (2, 3) else rows
    if rows.ndim != 2 or rows.size == 0:
        raise ValueError(f"expected {what} (P, B), got shape {rows.shape}")
    if not np.isfinite(rows).all():
        raise ValueError(f"expected finite {what}, got NaN or infinity")
    return np.asarray(rows)


def _distances(names: Sequence[str], raw: Array, null: Array, drawn: Array) -> tuple[Distance, ...]:
    """Of every pair of groups, from its distance, those of permutations and those of bootstrap draws."""
    found = []
    for k, pair in enumerate(combinations(names, 2)):
        value, centre = float(raw[k] - null[:, k].mean()), float(drawn[:, k].mean())
        low, high = (value + float(q) - centre for q in np.quantile(drawn[:, k], [0.025, 0.975]))
        p = _p(null[:, k], raw[k])
        found.append(Distance(pair, float(raw[k]), float(null[:, k].mean()), (low, high), p))
    return tuple(found)


def _p(null: Array, value: Any) -> float:
    return float((1 + (null >= value - 1e-12).sum()) / (1 + len(null)))


def _rates(
    scores: Any, same: Any, rule: Rule, names: Sequence[str], group: NDArray[np.int64]
) -> tuple[float | None, dict[str, Rates] | None]:
    if same is None:
        return None, None
    labels = labels_of(same, len(group), "same", "rows")
    if scores is None:
        return None, None
    cosines, labels = labelled_scores(scores, labels)
    limit = threshold(cosines, labels, rule)
    accepted, found = cosines >= limit, {}
    for g, name in enumerate(names):
        own = group == g
        genuine, impostor = own & labels, own & ~labels
        found[name] = Rates(
            fmr=float(accepted[impostor].mean()) if impostor.any() else None,
            fnmr=float((~accepted[genuine]).mean()) if genuine.any() else None,
            accuracy=float((accepted == labels)[own].mean()),
            genuine=int(genuine.sum()),
            impostor=int(impostor.sum()),
        )
    return limit, found
