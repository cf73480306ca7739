"""Compares groups of people by the frequency bands that decisions use, and by error rates."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from facexai.functional._labels import labels_of
from facexai.metrics._bias_result import Bias
from facexai.metrics._group_comparison import (
    FEWEST_DIVISIONS,
    UNNAMED,
    Rows,
    check_draws,
    compared,
    people_of_rows,
    rows_of,
    summed,
)
from facexai.metrics._group_rates import rates_of
from facexai.metrics.verification import Rule, threshold
from facexai.results import FrequencyHeat

Array = NDArray[np.float64]


def bias(
    influence: FrequencyHeat | Tensor | Any,
    groups: Sequence[str],
    *,
    identities: Sequence[str | None] | None = None,
    partners: Sequence[str | None] | None = None,
    energies: Any = None,
    scores: Any = None,
    same: Any = None,
    rule: Rule = "eer",
    draws: int = 999,
    seed: int = 0,
) -> Bias:
    """Compares the bands that decide about groups of people.

    A group's spectrum is the mean magnitude of the influence over its rows, divided by its sum over bands: after
    averaging, so that a row with little influence does not count as much as one with a lot. Groups are compared by the
    total variation between spectra. Rows of one person are alike, so permutations and bootstrap move people. Pairs that
    share a person are alike, whichever of the two it is: a permutation moves all people together whom pairs link, and
    where that leaves too few parts to move there is no p-value; :func:`pair_bias` permutes people of pairs one by one.

    Args:
        influence: a :class:`~facexai.FrequencyHeat`, or (P, B) raw influence. Sectors count as bands of their own.
        groups: (P,) group of each row; at least two. For labels of images see :func:`pair_groups`.
        identities: (P,) person in the image, or in the first image of each pair, None where unknown; see
            :meth:`Statistic.of`. A person belongs to one group. Default: every row is about people of its own.
        partners: (P,) person in the second image of each pair. Rows are pairs where these or ``same`` are given, or
            ``influence`` is a FrequencyHeat of pairs. Default: in a pair of one person that person; if identities are
            given and some pairs are of two people, or ``same`` is missing, nothing is tested.
        energies: (P, B) that the bands of the images hold, for the energy-matched control; taken from a FrequencyHeat.
        scores: (P,) cosines; taken from a FrequencyHeat of pairs.
        same: (P,) True for pairs of one person, for the error rates; labels as in :func:`facexai.metrics.roc`.
        rule: of the threshold, over all groups: see :func:`threshold`.
        draws: permutations, and bootstrap draws: of people, where a pair of two people weighs the product of how often
            each was drawn.
        seed: of both.

    Returns:
        :class:`Bias`. Energy-matched: every group's mean magnitude is divided by the mean amplitude (root of the
        energy) that its images have in the band, times that of all images. Where groups differ in their pictures alone,
        this distance shrinks; it vanishes where influence is proportional to amplitude, which a network is to first
        order only, and only in the image whose band is removed.

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
    values = rows_of(heat.influence if heat is not None else influence, "influence")
    check_draws(draws, seed)
    pairs = partners is not None or same is not None or (heat is not None and heat.targets is None)
    people, reason = people_of_rows(len(values), identities, partners, same, pairs)
    names, group, sums = summed(values, groups, people, energies)
    rng = np.random.default_rng(seed)
    if reason is None and sums.are_pairs and sums.divisions < FEWEST_DIVISIONS:
        reason = (
            f"pairs that share people stay together, which leaves {sums.divisions} ways to divide them into the "
            "groups; give more people, or use metrics.pair_bias, which permutes people one by one, with evidence of "
            "FrequencyHeatPlot.observe"
        )
    moved = None if reason is not None else "people, together with all whom pairs link to them" if pairs else "people"
    recipe = {"draws": draws, "seed": seed, "rule": str(rule), "permuted": moved}
    chance = None if reason is not None else sums.by_chance(draws, rng)
    return compared(
        Rows(names, group, values, people, sums),
        chance,
        rates=rates_of(scores, same, rule, names, group, None if pairs and reason == UNNAMED else people),
        draws=draws,
        rng=rng,
        edges=heat.edges.cpu().numpy() if heat is not None and heat.influence.ndim == 2 else None,
        face=None if heat is None else heat.face,
        recipe={**recipe, **({} if heat is None else dict(heat.recipe))},
        reason=reason,
    )


def pair_groups(labels: Sequence[str], index: Any) -> list[str | None]:
    """Returns the group of each pair from labels of images: that of both, or None where they differ.

    >>> pair_groups(["a", "a", "b"], [(0, 1), (1, 2)])
    ['a', None]
    """
    pairs = np.asarray(index)
    if pairs.ndim != 2 or pairs.shape[1] != 2 or (len(pairs) and not 0 <= pairs.min() <= pairs.max() < len(labels)):
        raise ValueError(f"expected pairs (P, 2) of images below {len(labels)}, got shape {pairs.shape}")
    return [labels[i] if labels[i] == labels[j] else None for i, j in pairs.tolist()]


def rank_correlation(distances: Sequence[float], gaps: Sequence[float]) -> tuple[float, float]:
    """Returns Spearman's correlation over models between spectral distance and performance gap, and its p-value.

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


def check_groups(
    groups: Sequence[str],
    identities: Sequence[str | None] | None,
    same: Any,
    rule: Rule,
    draws: int,
    seed: int,
    partners: Sequence[str | None] | None = None,
) -> None:
    """Refuses before any network pass what :func:`bias` would refuse after all of them.

    Raises:
        ValueError: as :func:`bias`.
    """
    check_draws(draws, seed)
    pairs = partners is not None or same is not None
    people, _ = people_of_rows(len(groups), identities, partners, same, pairs)
    summed(np.ones((len(groups), 1)), groups, people, None)
    if same is not None:
        labels = labels_of(same, len(groups), "same")
        threshold(labels, labels, rule)
