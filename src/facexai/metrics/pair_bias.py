"""Compares groups of people by the frequency bands of decisions, over pairs of photos, tested by permuting people."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch.nn.functional as F
from numpy.typing import NDArray

from facexai.explainers import FrequencyHeatPlot
from facexai.explainers.either import of_pairs
from facexai.explainers.pairs import FaceEvidence, units_of
from facexai.functional._labels import labels_of
from facexai.hooks import no_graph
from facexai.metrics._bias_result import Bias
from facexai.metrics._face_bands import FaceBands, People
from facexai.metrics._group_comparison import Rows, check_draws, compared, summed
from facexai.metrics._group_rates import rates_of
from facexai.metrics._identities import linked_people, people_of
from facexai.metrics.bias import pair_groups
from facexai.metrics.pair_subject import check_labels
from facexai.metrics.verification import Rule
from facexai.results import FrequencyHeat

Index = NDArray[np.int64]


def pair_bias(
    explainer: FrequencyHeatPlot,
    evidence: FaceEvidence,
    index: Any,
    groups: Sequence[str | None],
    *,
    identities: Sequence[str | None] | None = None,
    same: Any = None,
    rule: Rule = "eer",
    draws: int = 999,
    seed: int = 0,
) -> Bias:
    """Compares the bands that decide about groups of people, over pairs of their photos.

    Spectra, distances, energy-matched distances and errors are those of :func:`bias`. The test is another, exact one:
    people change places, with all of their photos, and the influence on the pairs that they then form is computed
    from their embeddings with and without each band. If groups do not differ, the real division is as likely as any
    other one, whichever pairs are formed within the groups. People change places with people of as many photos only,
    so that pairs keep their kind.

    Args:
        explainer: of pairs, in exact mode.
        evidence: of n photos, from its :meth:`~facexai.FrequencyHeatPlot.observe`.
        index: (P, 2) photos of each pair; pairs of two groups are left out.
        groups: (n,) group of each photo, at least two; None or ``""``: its pairs are left out.
        identities: (n,) person in each photo, None where unknown; see :meth:`Statistic.of`. A person belongs to one
            group. Photos that a pair of one person (``same``) links show one person. Default: no identity is known.
        same: (P,) True for pairs of one person, for the error rates and for identities; labels as in
            :func:`facexai.metrics.roc`.
        rule: of the threshold, over all groups: see :func:`threshold`.
        draws: permutations, and bootstrap draws; seed: of both.

    Returns:
        :class:`Bias`, as of :func:`bias`. Its p-values are None where hardly any people of different groups have as
        many photos.

    Raises:
        TypeError: no frequency heat plot of pairs.
        ValueError: another mode than exact, evidence of another explainer or number of photos, pairs of photos that do
            not exist, labels that contradict the identities; else as :func:`bias`.

    Cost: no network pass. A matrix product of n by n photos for each band, and 8 n^2 bytes.

    Source: ours.

    >>> import torch
    >>> from facexai import FaceModel, InputSpec
    >>> model = FaceModel(torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(768, 5)), InputSpec(16))
    >>> plot = FrequencyHeatPlot(model, width=2)
    >>> index = [(i, j) for i in range(12) for j in range(12) if i != j]
    >>> found = pair_bias(plot, plot.observe(torch.rand(12, 3, 16, 16)), index, ["a"] * 6 + ["b"] * 6, draws=99)
    >>> found.rows, found.people
    ({'a': 30, 'b': 30}, {'a': 6, 'b': 6})
    """
    check_draws(draws, seed)
    heat = _answered(explainer, evidence, groups)
    labels = None if same is None else labels_of(same, len(index), "same")
    labelled = pair_groups(["" if group is None else group for group in groups], index)
    chosen = np.array([p for p, group in enumerate(labelled) if group], dtype=np.int64)
    if len(chosen) == 0:
        raise ValueError("expected pairs of two photos of one group, got none")
    pairs = np.asarray(index, dtype=np.int64)[chosen]
    photos, pairs = np.unique(pairs, return_inverse=True)
    pairs = pairs.reshape(-1, 2)
    everyone = people_in_photos(identities, len(groups), index, labels)
    names = [everyone[i] for i in photos.tolist()]
    bands = face_bands(explainer, evidence, photos)
    values, of_rows = bands.influence(pairs), [str(labelled[p]) for p in chosen.tolist()]
    both = (tuple(names[i] for i in pairs[:, 0]), tuple(names[i] for i in pairs[:, 1]))
    kinds, group, sums = summed(values, of_rows, both, bands.held_energy(pairs))
    people = People.of(names, np.array([kinds.index(str(groups[i])) for i in photos.tolist()]))
    rng, reason = np.random.default_rng(seed), None
    if people.divisions < 3:  # a division and its mirror image are alike
        reason = "people of both groups with as many photos are needed, who can change places; give more people"
    recipe = {
        **heat.recipe,
        "draws": draws,
        "seed": seed,
        "rule": str(rule),
        "pairs left out": len(labelled) - len(chosen),
    }
    recipe["permuted"] = "people among those with as many photos; pairs recomputed from embeddings"
    return compared(
        Rows(kinds, group, values, both, sums),
        None if reason is not None else bands.by_chance(pairs, group, sums, people, draws, rng),
        rates=rates_of(bands.scores(pairs), None if labels is None else labels[chosen], rule, kinds, group, both),
        draws=draws,
        rng=rng,
        edges=heat.edges.cpu().numpy() if heat.influence.ndim == 2 else None,
        face=heat.face,
        recipe=recipe,
        reason=reason,
    )


def _answered(explainer: FrequencyHeatPlot, evidence: FaceEvidence, groups: Sequence[str | None]) -> FrequencyHeat:
    """Returns the answer of the first photo with itself, which refuses evidence that is not this explainer's."""
    if not isinstance(explainer, FrequencyHeatPlot) or not of_pairs(explainer.model):
        raise TypeError(f"expected a FrequencyHeatPlot of a FaceModel that embeds, got {explainer!r}")
    if explainer.mode != "exact":
        raise ValueError(f"expected mode='exact', whose evidence is enough for every pair, got {explainer.mode!r}")
    heat = explainer.answer(evidence[:1], evidence[:1])
    if len(evidence) != len(groups):
        raise ValueError(f"expected a group for each of the {len(evidence)} photos, got {len(groups)}")
    return heat


def people_in_photos(identities: Any, count: int, index: Any, same: NDArray[np.bool_] | None) -> list[str]:
    """Returns the name of the person in each of n photos.

    Args:
        identities: (n,), None if unknown; None: no identity is known.
        count: n.
        index: (P, 2) photos of pairs.
        same: (P,) pairs of one person; they link photos without identities that show one person.

    Raises:
        ValueError: labels that contradict the identities.
    """
    named = people_of([None] * count if identities is None else identities, range(count))
    assert named is not None
    pairs = np.asarray(index)
    if same is not None:
        check_labels([named[i] for i in pairs[:, 0]], [named[i] for i in pairs[:, 1]], same)
        named = tuple(linked_people(named, pairs, same))
    return [name.replace("unknown person, item", "unknown person, photo") for name in named]


def face_bands(explainer: FrequencyHeatPlot, evidence: FaceEvidence, photos: Index) -> FaceBands:
    """Observes some of the photos without each band."""
    rows = photos.tolist()
    with no_graph():
        units = units_of(explainer.network, evidence)[rows].double()
        without = F.normalize(evidence.parts["without"][rows].double(), dim=-1)
    cells = evidence.parts["which"][rows[0]]
    energies = evidence.parts["energies"][rows].double()
    unit, left, place, held_energy = (part.cpu().numpy() for part in (units, without, cells, energies))
    return FaceBands(unit, left, place, held_energy, explainer.masked)
