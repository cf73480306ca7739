"""Group spectra: planted differences are found, nothing is not, and the numbers are those of slow references."""

from __future__ import annotations

import itertools
import json

import numpy as np
import pytest
import torch
from pair_methods import Small
from scipy import stats

from facexai import FaceModel, FrequencyHeatPlot, InputSpec, metrics
from facexai.metrics.group_spectra import PersonSums, distances


def influence(people=30, each=4, bands=20, shift=0, seed=0, energy=None):
    """Rows of people: a bump over the bands, its place shifted in the second half; personal and random spread."""
    rng = np.random.default_rng(seed)
    who = np.repeat(np.arange(people), each)
    place = 6 + shift * (who >= people // 2) + rng.normal(0, 0.7, people)[who]
    size = np.exp(-((np.arange(bands)[None] - place[:, None]) ** 2) / 8)
    signs = np.where(rng.random((len(who), bands)) < 0.3, -1, 1)
    rows = signs * size * rng.lognormal(0, 0.4, (len(who), bands)) * rng.lognormal(0, 0.5, people)[who, None]
    if energy is not None:
        rows = rows * np.sqrt(energy)
    return rows, [f"p{i}" for i in who], np.where(who < people // 2, "a", "b")


def test_a_planted_shift_is_found_and_is_not_the_pictures():
    rows, people, groups = influence(shift=2)
    energies = np.random.default_rng(1).lognormal(0, 0.1, rows.shape)
    found = metrics.bias(rows, groups, identities=people, energies=energies)
    only = found.distances[0]
    assert only.groups == ("a", "b")
    assert only.p_value < 0.01
    assert found.p_value < 0.01
    assert only.interval[0] > 0
    assert found.matched[0].p_value < 0.01
    assert found.images[0].p_value > 0.01


def test_a_difference_of_the_pictures_alone_vanishes_when_matched():
    rng = np.random.default_rng(3)
    rows, people, groups = influence()
    energies = np.ones_like(rows) * rng.lognormal(0, 0.1, rows.shape)
    energies[groups == "b", 8:] *= 16
    found = metrics.bias(rows * np.sqrt(energies), groups, identities=people, energies=energies)
    assert found.distances[0].p_value < 0.01
    assert found.images[0].p_value < 0.01
    assert found.matched[0].p_value > 0.05
    assert found.matched[0].value < found.distances[0].value / 4


def test_chance_finds_nothing_as_often_as_it_should():
    """50 seeded splits of people that do not differ: p is uniform, and the corrected distance's interval covers 0."""
    p_values, covered, centre = [], 0, []
    for seed in range(50):
        rows, people, _ = influence(people=24, seed=7)
        numbers = np.unique(people)
        first = set(np.random.default_rng(seed).permutation(numbers)[:12])
        groups = ["a" if who in first else "b" for who in people]
        found = metrics.bias(rows, groups, identities=people, draws=199, seed=seed).distances[0]
        p_values.append(found.p_value)
        covered += found.interval[0] <= 0 <= found.interval[1]
        centre.append(found.value)
    assert stats.kstest(p_values, "uniform").pvalue > 0.01
    assert covered >= 45
    assert abs(np.mean(centre)) < 2 * np.std(centre) / np.sqrt(50) + 1e-3


def test_spectra_are_normalised_after_averaging():
    rows, people, groups = influence(people=6)
    found = metrics.bias(rows, groups, identities=people, draws=9)
    for name, spectrum, signed in zip(found.groups, found.spectra, found.signed, strict=True):
        own = rows[groups == name]
        mean = np.abs(own).mean(0)
        assert np.allclose(spectrum, mean / mean.sum())
        assert np.allclose(signed, own.mean(0))
    raw = np.abs(found.spectra[0] - found.spectra[1]).sum() / 2
    assert np.isclose(found.distances[0].raw, raw)
    assert np.allclose(found.std, np.std(found.spectra, axis=0))


def test_permutations_move_whole_people():
    """All labellings of six people, one by one, against the distribution that is drawn."""
    rows, people, groups = influence(people=6, each=3)
    sums = PersonSums.of(np.abs(rows), None, (groups == "b").astype(int), people)
    exact = []
    for chosen in itertools.combinations(range(6), 3):
        swapped = np.array(["b" if int(who[1:]) in chosen else "a" for who in people])
        parts = [np.abs(rows[swapped == g]).sum(0) for g in "ab"]
        a, b = (part / part.sum() for part in parts)
        exact.append(np.abs(a - b).sum() / 2)
    drawn = distances(sums.by_chance(400, np.random.default_rng(0))["own"])[:, 0]
    assert np.allclose(np.unique(drawn.round(12)), np.unique(np.round(exact, 12)))
    assert abs(drawn.mean() - np.mean(exact)) < 0.02


def test_bands_that_hold_nothing_are_not_matched():
    """Rounding divided by nearly no amplitude would be the whole spectrum."""
    rows, people, groups = influence()
    energies = np.ones_like(rows)
    energies[:, 12:] = 1e-12
    rows[:, 12:] = 1e-3 * np.random.default_rng(0).random((len(rows), 8)) * (groups == "b")[:, None]
    found = metrics.bias(rows, groups, identities=people, energies=energies, draws=199)
    assert found.matched[0].p_value > 0.05


def test_many_people_are_drawn_in_parts(monkeypatch):
    rows, people, groups = influence(people=12)
    energies = np.random.default_rng(0).random(rows.shape)
    whole = metrics.bias(rows, groups, identities=people, energies=energies, draws=50)
    monkeypatch.setattr("facexai.metrics.group_spectra._AT_ONCE", 100)
    parts = metrics.bias(rows, groups, identities=people, energies=energies, draws=50)
    assert json.dumps(whole.record()) == json.dumps(parts.record())


def test_three_groups_are_compared_in_pairs_and_together():
    rows, people, _ = influence(people=30)
    number = np.array([int(who[1:]) for who in people])
    rows[number >= 20] = np.roll(rows[number >= 20], 4, axis=1)
    groups = np.array(["x", "y", "z"])[number // 10]
    found = metrics.bias(rows, groups, identities=people)
    p = {d.groups: d.p_value for d in found.distances}
    assert list(p) == [("x", "y"), ("x", "z"), ("y", "z")]
    assert p["x", "z"] < 0.01 < p["x", "y"]
    assert found.p_value < 0.01


def test_errors_of_groups_at_one_threshold():
    rows, people, groups = influence(people=20)
    rng = np.random.default_rng(0)
    same = rng.random(len(rows)) < 0.5
    scores = np.where(same, 0.6, 0.2) + rng.normal(0, 0.1, len(rows)) - 0.15 * (groups == "b") * same
    others = [
        who if alike else f"p{(int(who[1:]) + 1) % 10 + 10 * (int(who[1:]) > 9)}"
        for who, alike in zip(people, same, strict=True)
    ]
    found = metrics.bias(rows, groups, identities=people, partners=others, scores=scores, same=same, draws=19)
    assert found.threshold == metrics.threshold(scores, same)
    for name in "ab":
        own = groups == name
        accepted = scores[own] >= found.threshold
        rates = found.rates[name]
        assert rates.fmr == accepted[~same[own]].mean()
        assert rates.fnmr == (~accepted[same[own]]).mean()
        assert rates.accuracy == (accepted == same[own]).mean()
        assert rates.genuine + rates.impostor == own.sum()
        for kind in ("fmr", "fnmr", "accuracy"):
            low, high = getattr(rates, f"{kind}_interval")
            assert 0 <= low <= getattr(rates, kind) <= high <= 1
            assert low < high
    assert found.p_value is None  # a group is one component
    assert "or use metrics.pair_bias" in repr(found)
    assert found.gap("fnmr") == abs(found.rates["a"].fnmr - found.rates["b"].fnmr) > 0
    assert "FNMR" in repr(found)
    json.dumps(found.record())


def test_a_heat_plot_brings_edges_energies_and_scores():
    model = FaceModel(Small().eval(), InputSpec(20))
    first, second = torch.rand(8, 3, 20, 20), torch.rand(8, 3, 20, 20)
    heat = FrequencyHeatPlot(model)(first, second)
    found = metrics.bias(heat, ["a", "b"] * 4, same=[True, False] * 4, rule=0.5, draws=19)
    assert found.matched is not None
    assert found.threshold == 0.5
    assert "<img" in found._repr_html_()
    middle = (heat.edges[1:] + heat.edges[:-1]).numpy() / 2
    assert np.isclose(found.centroids["a"], found.spectra[0] @ middle)
    sectors = metrics.bias(FrequencyHeatPlot(model, width=4, sectors=3)(first, second), ["a", "b"] * 4, draws=19)
    assert sectors.spectra.shape == (2, 12)
    assert sectors.centroids is None


def test_groups_of_pairs_are_those_of_both_images():
    assert metrics.pair_groups(["a", "b", "a"], [(0, 2), (0, 1)]) == ["a", None]
    with pytest.raises(ValueError, match="below 3"):
        metrics.pair_groups(["a", "b", "a"], [(0, 3)])


def test_rank_correlation_is_that_of_scipy_over_all_permutations():
    a, b = [0.1, 0.4, 0.2, 0.9, 0.5, 0.7], [1.0, 3.0, 3.0, 6.0, 2.0, 5.0]
    rho, p = metrics.rank_correlation(a, b)
    assert np.isclose(rho, stats.spearmanr(a, b).statistic)
    every = [stats.spearmanr(a, list(order)).statistic for order in itertools.permutations(b)]
    assert np.isclose(p, np.mean(np.abs(every) >= abs(rho) - 1e-9), atol=0.01)
    with pytest.raises(ValueError, match="at least six models"):
        metrics.rank_correlation(a[:5], b[:5])
    with pytest.raises(ValueError, match="differ between models"):
        metrics.rank_correlation([1] * 6, b)


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"groups": ["a"] * 24}, "at least two groups"),
        ({"groups": ["a"] * 23}, "a group for each of the 24 rows"),
        ({"groups": ["a"] * 20 + ["b"] * 4}, "at least two people in each group, 'b' has 1"),
        ({"identities": ["one"] * 24}, "'one' is in two groups"),
        ({"influence": np.zeros((24, 20))}, "does not see these images"),
        ({"influence": np.full((24, 20), np.nan)}, "finite influence"),
        ({"influence": np.zeros(24)}, r"influence \(P, B\)"),
        ({"energies": np.ones((24, 3))}, "energies of shape"),
        ({"draws": 0}, "draws of at least 1"),
        ({"seed": -1}, "a seed of at least 0"),
        ({"groups": [None] * 4 + ["a"] * 10 + ["b"] * 10}, "row 0 has None; leave it out"),
        ({"energies": -np.ones((24, 20))}, "none negative"),
        ({"energies": np.repeat([[0.0], [1.0]], 12, 0) * np.ones(20)}, "group 'a' hold no energy"),
        ({"influence": np.repeat([[1.0], [0.0]], 12, 0) * np.ones(20)}, "in group 'b': the network does not"),
        ({"scores": [0.1], "same": [True]}, "True or False for each of the 24 rows"),
    ],
)
def test_bad_input_is_one_clear_error(changes, match):
    rows, people, groups = influence(people=6, each=4)
    given = {"influence": rows, "groups": groups, "identities": people, "draws": 9, **changes}
    with pytest.raises(ValueError, match=match):
        metrics.bias(given.pop("influence"), given.pop("groups"), **given)


# ---- pairs of photos ----------------------------------------------------------------------------------------------


def photos_of(count=12, size=20, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(count, 3, size, size, generator=generator)


def plotted(masked="both", **more):
    torch.manual_seed(0)
    return FrequencyHeatPlot(FaceModel(Small().eval(), InputSpec(20)), width=4, masked=masked, **more)


def ordered(groups):
    return [(i, j) for i, g in enumerate(groups) for j, h in enumerate(groups) if i != j and g == h]


@pytest.mark.parametrize("masked", ["first", "second", "both"])
@pytest.mark.parametrize("sectors", [1, 2])
def test_pairs_of_photos_have_the_spectra_of_their_heat_plots(masked, sectors):
    plot, photos = plotted(masked, sectors=sectors), photos_of()
    groups = ["a"] * 5 + ["b"] * 6 + [None]
    index = ordered(["a"] * 5 + ["b"] * 6)
    evidence = plot.observe(photos)
    found = metrics.pair_bias(plot, evidence, [*index, (0, 5), (0, 11)], groups, draws=49)
    first, second = (photos[[pair[side] for pair in index]] for side in (0, 1))
    heat = plot(first, second)
    rows = metrics.bias(
        heat, [groups[i] for i, _ in index], identities=[i for i, _ in index], partners=[j for _, j in index], draws=9
    )
    np.testing.assert_allclose(found.spectra, rows.spectra, atol=1e-5)
    np.testing.assert_allclose(found.signed, rows.signed, atol=1e-5)
    for one, other in zip(found.matched + found.images, rows.matched + rows.images, strict=True):
        assert one.raw == pytest.approx(other.raw, abs=1e-4)
    assert (found.rows, found.people) == ({"a": 20, "b": 30}, {"a": 5, "b": 6})
    assert (found.edges is None) == (sectors == 2)
    assert found.recipe["pairs left out"] == 2
    assert found.p_value is not None
    assert rows.p_value is None
    json.dumps(found.record())


def test_the_permutations_of_people_are_all_divisions_with_pairs_formed_anew():
    """Every division of six people, its pairs measured by the heat plot itself."""
    plot, photos = plotted(), photos_of(6)
    groups = ["a"] * 3 + ["b"] * 3
    index = ordered(groups)
    rows = torch.cat([plot(photos[i : i + 1].expand(6, -1, -1, -1), photos).influence.abs() for i in range(6)])
    table = rows.view(6, 6, -1).double().numpy()
    exact = []
    for chosen in itertools.combinations(range(6), 3):
        parts = [
            sum(table[i, j] for i in own for j in own if i != j)
            for own in (chosen, [i for i in range(6) if i not in chosen])
        ]
        a, b = (part / part.sum() for part in parts)
        exact.append(np.abs(a - b).sum() / 2)
    found = metrics.pair_bias(plot, plot.observe(photos), index, groups, draws=999)
    only = found.distances[0]
    assert only.raw == pytest.approx(exact[0], abs=1e-5)
    assert only.null == pytest.approx(np.mean(exact), rel=0.05)
    assert only.p_value == pytest.approx(np.mean(np.array(exact) >= exact[0] - 1e-6), abs=0.06)


def test_people_change_places_with_people_of_as_many_photos():
    plot, photos = plotted(), photos_of(9)
    names = ["ann", "ann", "bo", "bo", "cy", "cy", "dan", "eve", "eve"]
    groups = ["a"] * 4 + ["b"] * 5
    index, same = ordered(groups), [names[i] == names[j] for i, j in ordered(groups)]
    found = metrics.pair_bias(plot, plot.observe(photos), index, groups, identities=names, same=same, draws=99)
    assert found.people == {"a": 2, "b": 3}
    assert found.rates["a"].genuine == 4
    unknown = metrics.pair_bias(plot, plot.observe(photos), index, groups, same=same, draws=99)
    assert unknown.people == found.people  # pairs of one person tell who is who
    assert unknown.rates["b"].fnmr == found.rates["b"].fnmr
    lone = metrics.pair_bias(plot, plot.observe(photos), index, groups, identities=[*"aabbcdddd"], draws=9)
    assert lone.p_value is None
    assert "people of both groups with as many photos" in lone.reason
    assert "not tested" in repr(lone)


@pytest.mark.slow
@pytest.mark.parametrize("design", ["all ordered", "unequal groups"])
def test_splits_that_cannot_differ_are_rejected_as_often_as_they_should(design):
    plot = plotted()
    evidence, p_values, rows = plot.observe(photos_of(20)), [], []
    size = 6 if design == "unequal groups" else 10
    for seed in range(200):
        chosen = set(np.random.default_rng(seed).permutation(20)[:size].tolist())
        groups = ["a" if i in chosen else "b" for i in range(20)]
        found = metrics.pair_bias(plot, evidence, ordered(groups), groups, draws=99, seed=seed)
        p_values.append(found.p_value)
        rows.append(found.distances[0].value)
    assert np.mean(np.array(p_values) <= 0.05) <= 0.085
    assert stats.kstest(p_values, "uniform").pvalue > 0.01
    assert abs(np.mean(rows)) < 3 * np.std(rows) / np.sqrt(200) + 1e-3


def test_rows_of_disjoint_pairs_are_permuted_and_linked_ones_are_not():
    rows, _, groups = influence(people=40, each=1, shift=2)
    people = [f"p{i}" for i in range(80)]
    disjoint = metrics.bias(rows, groups, identities=people[::2], partners=people[1::2])
    assert disjoint.p_value < 0.01
    assert disjoint.recipe["permuted"] == "people, together with all whom pairs link to them"
    assert disjoint.people == {"a": 40, "b": 40}
    ring = [f"p{(i + 1) % 20 + 20 * (i >= 20)}" for i in range(40)]
    linked = metrics.bias(rows, groups, identities=people[:40], partners=ring)
    assert linked.p_value is None
    assert linked.distances[0].value is linked.distances[0].interval is None
    assert linked.distances[0].raw == disjoint.distances[0].raw
    assert "leaves 2 ways to divide them into the groups; give more" in linked.reason
    assert np.isfinite(linked.intervals).all()
    assert "chance makes an unknown part" in repr(linked)
    assert linked._repr_html_()
    same = [False] * 20 + [True] * 20
    unnamed = metrics.bias(rows, groups, identities=people[:40], same=same, scores=np.arange(40) / 40)
    assert unnamed.p_value is None
    assert "pass partners=" in unnamed.reason
    assert unnamed.rates["a"].fmr_interval is None
    genuine = metrics.bias(rows, groups, identities=people[:40], same=[True] * 40, rule=0.3, scores=np.arange(40) / 40)
    assert genuine.p_value < 0.01


@pytest.mark.parametrize(
    ("changes", "error", "match"),
    [
        ({"explainer": plotted(mode="hybrid")}, ValueError, "expected mode='exact'"),
        ({"explainer": "plot"}, TypeError, "expected a FrequencyHeatPlot of a FaceModel"),
        ({"groups": ["a"] * 6}, ValueError, "a group for each of the 12 photos, got 6"),
        ({"index": [(0, 12)]}, ValueError, "pairs \\(P, 2\\) of images below 12"),
        ({"index": [(0, 11)]}, ValueError, "pairs of two photos of one group, got none"),
        ({"index": [(0, 1)]}, ValueError, "at least two groups"),
        ({"draws": 0}, ValueError, "draws of at least 1"),
        ({"identities": ["ann"] * 11}, ValueError, "for each of the 12 images, got 11"),
        ({"identities": ["ann"] * 12}, ValueError, "'ann' is in two groups"),
        ({"same": [True]}, ValueError, "for each of the 60 pairs"),
        ({"same": [True] * 60, "identities": list("abcdefghijkl")}, ValueError, "row 0 is labelled as a pair of one"),
        ({"evidence": plotted(keep_dc=True).observe(photos_of())}, ValueError, "this evidence was made with"),
    ],
)
def test_bad_pairs_of_photos_are_one_clear_error(changes, error, match):
    plot = plotted()
    groups = ["a"] * 6 + ["b"] * 6
    given = {"explainer": plot, "evidence": plot.observe(photos_of()), "index": ordered(groups), "groups": groups}
    with pytest.raises(error, match=match):
        metrics.pair_bias(**{**given, **changes})
