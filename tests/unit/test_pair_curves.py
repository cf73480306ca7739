"""Verification curves: a literal loop, both ends, networks whose true region is known, and what is refused."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from facexai import CorrRISE, FaceModel, FaceXAIWarning, InputSpec, PairSaliency, metrics, perturb
from facexai.metrics import PROTOCOLS, Protocol
from facexai.metrics.pair_orders import CONTROLS
from facexai.perturb._ties import untied

SIZE = 12
TRUE = torch.zeros(SIZE, SIZE, dtype=torch.bool)
TRUE[:4, :6] = True


class Region(nn.Module):
    """Sees nothing but one region, and the bias that makes an empty picture unlike all others."""

    def __init__(self):
        super().__init__()
        self.bias = nn.Parameter(torch.tensor([-1.0]))

    def forward(self, x):
        seen = x[:, :, TRUE].flatten(1)
        return torch.cat([seen - seen.new_tensor(0.4), self.bias.expand(len(x), 1)], 1)


@pytest.fixture
def model():
    return FaceModel(Region().double(), InputSpec(SIZE, mean=0.0, std=1.0))


@pytest.fixture
def data():
    """Eight pairs of four people; the first four are genuine: the true region is nearly the same."""
    made = torch.Generator().manual_seed(3)
    first, second = (torch.rand(8, 3, SIZE, SIZE, generator=made, dtype=torch.float64) for _ in range(2))
    second[:4][..., TRUE] = (first[:4][..., TRUE] + 0.1 * second[:4][..., TRUE]).clamp(0, 1)
    return first, second, torch.arange(8) < 4


@pytest.fixture
def maps():
    return torch.randn(8, 2, SIZE, SIZE, generator=torch.Generator().manual_seed(5))


def literal(model, first, second, maps, same, *, scheme, how, part):
    """Pair by pair, step by step, with a threshold from all unchanged pairs."""

    def cosine(a, b):
        with torch.no_grad():
            return float((F.normalize(model.net(a[None])) * F.normalize(model.net(b[None]))).sum())

    whole = [cosine(a, b) for a, b in zip(first, second, strict=True)]
    limit = metrics.threshold(whole, same, how.threshold)
    kinds = {
        "all": lambda p: True,
        "genuine": lambda p: bool(same[p]),
        "impostor": lambda p: not same[p],
        "accepted": lambda p: whole[p] >= limit,
        "rejected": lambda p: whole[p] < limit,
    }
    chosen = [p for p in range(len(first)) if kinds[how.pairs](p)]
    correct, cosines = [], []
    for p in chosen:
        towards = {"similar": 1, "dissimilar": -1, "auto": 1 if same[p] else -1}[part]
        row = []
        for step in range(how.steps + 1):
            images = [first[p], second[p]]
            for side in range(1 if how.perturb == "probe" else 2):
                flat = (towards * maps[p, side]).flatten().tolist()
                order = sorted(range(len(flat)), key=lambda k, flat=flat: (-flat[k], k))
                taken = order[: round(step / how.steps * len(flat))]
                shown = torch.full((len(flat),), scheme == "deletion")
                shown[taken] = scheme == "insertion"
                fill = perturb.make_fill(images[side][None], how.fill)[0]
                images[side] = torch.where(shown.view(SIZE, SIZE), images[side], fill)
            row.append(cosine(*images))
        cosines.append(row)
        correct.append([(value >= limit) == bool(same[p]) for value in row])
    return chosen, np.array(correct, dtype=float), np.array(cosines)


@pytest.mark.parametrize("scheme", ["deletion", "insertion"])
@pytest.mark.parametrize(
    ("how", "part"),
    [
        (Protocol(), "similar"),
        (Protocol(pairs="genuine", perturb="both", fill="mean", steps=4), "similar"),
        (Protocol(pairs="impostor", fill="blur", steps=3, threshold="far=0.5"), "dissimilar"),
        (Protocol(pairs="accepted", threshold=0.3, steps=5), "auto"),
        (Protocol(pairs="rejected", threshold="accuracy", steps=1), "auto"),
        (Protocol(perturb="both", fill="blur"), "auto"),
    ],
)
def test_curves_are_the_literal_loop(model, data, maps, scheme, how, part):
    first, second, same = data
    measure = getattr(metrics, f"verification_{scheme}")
    curve = measure(model, first, second, maps, same, how, part, controls=(), batch_size=3)
    chosen, correct, cosines = literal(model, first, second, maps, same.tolist(), scheme=scheme, how=how, part=part)
    assert curve.area.items.tolist() == chosen
    np.testing.assert_allclose(curve.cosines, cosines, atol=1e-12)
    np.testing.assert_array_equal(curve.correct, correct)
    assert curve.shares.tolist() == pytest.approx(np.linspace(0, 1, how.steps + 1).tolist())
    np.testing.assert_allclose(curve.cosine, cosines.mean(0))
    np.testing.assert_allclose(curve.cosine_area.values, np.trapezoid(cosines, dx=1 / how.steps, axis=1))
    assert curve.cosine_area.items.tolist() == chosen


def test_the_area_is_that_under_the_accuracy_and_has_an_interval(model, data, maps):
    first, second, same = data
    people, others = list("aabbccdd"), list("aabbeeab")
    curve = metrics.verification_deletion(model, first, second, maps, same, identities=people, partners=others)
    assert curve.auc == pytest.approx(100 * np.trapezoid(curve.accuracy, curve.shares))
    away = curve._error(None).away()
    assert curve.interval == pytest.approx((max(0, curve.auc - away), min(100, curve.auc + away)))
    low, high = curve.interval
    assert low <= curve.auc <= high
    assert curve.area.identities == tuple(people)
    assert curve.area.partners == tuple(others)
    centre = curve.controls["centre"]
    assert curve.p_value("centre") == curve.area.p_value(centre.area, curve._error(centre))
    assert "threshold found again in draws of people" in curve.recipe["interval"]
    assert "8 pairs" in repr(curve)
    with pytest.raises(KeyError, match="no control 'middle'"):
        curve.p_value("middle")


def test_both_ends(model, data, maps):
    first, second, same = data
    gone, come = (
        getattr(metrics, f"verification_{s}")(model, first, second, maps, same) for s in ("deletion", "insertion")
    )
    whole = (model.embed(first) * model.embed(second)).sum(1)
    limit = metrics.threshold(whole, same)
    assert gone.recipe["accepted from"] == pytest.approx(limit)
    assert gone.accuracy[0] == come.accuracy[-1] == float(((whole >= limit) == same).double().mean())
    np.testing.assert_array_equal(gone.cosines[:, 0], come.cosines[:, -1])
    np.testing.assert_array_equal(gone.cosines[:, -1], come.cosines[:, 0])
    black = (model.embed(torch.zeros_like(first)) * model.embed(second)).sum(1)
    np.testing.assert_allclose(gone.cosines[:, -1], black.numpy(), atol=1e-12)
    for control in gone.controls.values():
        np.testing.assert_array_equal(control.cosines[:, [0, -1]], gone.cosines[:, [0, -1]])
    both = metrics.verification_deletion(model, first, second, maps, same, Protocol(perturb="both"))
    np.testing.assert_allclose(both.cosines[:, -1], 1)


def test_insertion_is_deletion_in_the_other_order(model, data, maps):
    first, second, same = data
    gone = metrics.verification_deletion(model, first, second, maps, same, controls=())
    come = metrics.verification_insertion(model, first, second, -maps, same, controls=())
    # 144 pixels in ten steps: 14.4 rounds to 14 and 129.6 to 130, which add up
    np.testing.assert_allclose(come.cosines[:, ::-1], gone.cosines, atol=1e-12)


def test_the_true_region_wins_and_its_complement_loses(model, data):
    first, second, same = data
    true = TRUE.double().expand(8, 2, -1, -1) + 1e-3 * torch.rand(8, 2, SIZE, SIZE)
    methods = {"true": true, "noise": torch.randn(8, 2, SIZE, SIZE), "wrong": -true}
    how = Protocol(pairs="genuine", threshold=0.7)
    given = model, first, second
    gone = {name: metrics.verification_deletion(*given, m, same, how) for name, m in methods.items()}
    come = {name: metrics.verification_insertion(*given, m, same, how) for name, m in methods.items()}
    assert gone["true"].auc < gone["noise"].auc < gone["wrong"].auc
    assert come["true"].auc > come["noise"].auc > come["wrong"].auc
    assert gone["true"].auc < gone["true"].controls["random-region"].auc
    assert gone["true"].auc < gone["true"].controls["centre"].auc
    assert gone["true"].auc == gone["true"].controls["mean-map"].auc  # all true maps are the same
    assert gone["wrong"].cosines[0, 8] == pytest.approx(gone["wrong"].cosines[0, 0])  # what it hides is not seen


def test_presets(model, data, maps):
    first, second, same = data
    assert PROTOCOLS["fame"]["similar"] == Protocol("all", "probe", "black", 10, "raw", "eer", "trapezoid")
    similar = metrics.verification_deletion(model, first, second, maps, same, "epfl-inferred", "similar")
    dissimilar = metrics.verification_deletion(model, first, second, maps, same, "epfl-inferred", "dissimilar")
    auto = metrics.verification_deletion(model, first, second, maps, same, "epfl-inferred", "auto")
    assert similar.area.items.tolist() == [0, 1, 2, 3]
    assert dissimilar.area.items.tolist() == [4, 5, 6, 7]
    np.testing.assert_array_equal(auto.correct, np.concatenate([similar.correct, dissimilar.correct]))
    for control in ("random", "random-region", "centre", "mean-map", "other-pair"):
        joined = np.concatenate([c.controls[control].correct for c in (similar, dissimilar)])
        np.testing.assert_array_equal(auto.controls[control].correct, joined)
    assert similar.recipe["protocol"] == "epfl-inferred"
    assert similar.recipe["pairs"] == "genuine"
    assert similar.recipe["accepted from"] == auto.recipe["accepted from"]  # from all pairs, before any are chosen
    own = metrics.verification_deletion(model, first, second, maps, same, Protocol(steps=3))
    assert own.recipe["protocol"] == "own"


def test_controls_by_hand(model, data, maps):
    first, second, same = data
    people = ["ann", "ann", "bo", "bo", "ann", "ann", "bo", "bo"]
    how = Protocol(pairs="genuine", threshold=0.5)
    named = {"identities": people, "partners": [*people[:4], *"wxyz"], "seed": 7}
    curve = metrics.verification_deletion(model, first, second, maps, same, how, **named)

    def order_of(values):
        made = metrics.verification_deletion(model, first, second, values, same, how, controls=())
        return made.cosines

    swapped = maps.clone()
    swapped[:4] = maps[[2, 2, 0, 0]]
    np.testing.assert_array_equal(curve.controls["other-pair"].cosines, order_of(swapped))
    mean = metrics.mean_map(maps[:4, 0]).expand(8, 2, -1, -1)
    np.testing.assert_array_equal(curve.controls["mean-map"].cosines, order_of(mean))
    centre = untied(perturb.centre_prior((SIZE, SIZE))[None], [0], seed=7).expand(8, 2, -1, -1)
    np.testing.assert_array_equal(curve.controls["centre"].cosines, order_of(centre))
    shifted = maps.clone()
    ranks = maps[:4, 0].flatten(1).argsort(1).argsort(1).view(4, SIZE, SIZE)
    shifted[:4, 0] = perturb.shift_mask(ranks, seed=7, items=[0, 2, 4, 6]).float()
    shifted[4:] = maps[4:]
    np.testing.assert_array_equal(curve.controls["random-region"].cosines, order_of(shifted))
    again = metrics.verification_deletion(model, first, second, -maps, same, how, **named)
    np.testing.assert_array_equal(curve.controls["random"].cosines, again.controls["random"].cosines)
    other = metrics.verification_deletion(model, first, second, maps, same, how, seed=8, controls=("random",))
    assert not np.array_equal(curve.controls["random"].cosines, other.controls["random"].cosines)
    assert list(other.controls) == ["random"]


def test_a_part_without_a_value_is_ranked_by_the_signed_map(model, data):
    """Half of the map is positive; the rest follows by how little it speaks against."""
    first, second, same = data
    maps = torch.randn(8, 2, SIZE, SIZE)
    shifted = torch.where(maps > 0, maps * 5, maps * 3)  # the same order
    a, b = (metrics.verification_deletion(model, first, second, m, same, controls=()) for m in (maps, shifted))
    np.testing.assert_array_equal(a.cosines, b.cosines)


def test_blurred_ranks_are_those_of_the_drawn_part(model, data, maps):
    first, second, same = data
    blurred = metrics.verification_deletion(model, first, second, maps, same, Protocol(rank="blurred"), controls=())
    part = perturb.gaussian_blur(maps.clamp(min=0), 5 / 112 * SIZE)
    by_hand = metrics.verification_deletion(model, first, second, part, same, controls=())
    np.testing.assert_array_equal(blurred.cosines, by_hand.cosines)
    dissimilar = metrics.verification_deletion(
        model, first, second, maps, same, Protocol(rank="blurred"), "dissimilar", controls=()
    )
    part = perturb.gaussian_blur((-maps).clamp(min=0), 5 / 112 * SIZE)
    by_hand = metrics.verification_deletion(model, first, second, part, same, controls=())
    np.testing.assert_array_equal(dissimilar.cosines, by_hand.cosines)
    raw = metrics.verification_deletion(model, first, second, maps, same, controls=())
    assert not np.array_equal(raw.cosines, blurred.cosines)


def test_one_pair_says_why_it_has_few_controls(model, data, maps):
    first, second, same = data
    how = Protocol(threshold=0.5)
    one = metrics.verification_deletion(model, first[:1], second[:1], maps[:1], same[:1], how)
    assert one.controls["mean-map"] is None
    assert one.controls["other-pair"] is None
    assert one.reasons == {"mean-map": "one pair", "other-pair": "one pair"}
    assert one.controls["random"] is not None
    assert one.interval is None
    assert one.p_value("mean-map") is None
    ends = slice(3, 5)  # a genuine and an impostor pair
    two = metrics.verification_deletion(model, first[ends], second[ends], maps[ends], same[ends], how, "auto")
    assert two.reasons["mean-map"] == "one pair with this part of the map"
    with pytest.warns(FaceXAIWarning, match="first person of 4 pairs of two people and nothing names the second"):
        alone = metrics.verification_deletion(model, first, second, maps, same, identities=["ann"] * 8)
    assert alone.reasons == {"other-pair": "a pair has no other of another identity"}
    genuine = metrics.verification_deletion(
        model, first[:4], second[:4], maps[:4], same[:4], how, identities=["ann"] * 4
    )
    assert genuine.interval is None


def test_two_parts_add_to_the_whole(model, data, maps):
    first, second, same = data
    how, controls = Protocol(threshold=0.5), ("random", "random-region", "centre")
    whole = metrics.verification_deletion(model, first, second, maps, same, how, controls=controls)
    parts = [
        metrics.verification_deletion(
            model, first[s], second[s], maps[s], same[s], how, controls=controls, items=range(8)[s]
        )
        for s in (slice(5, 8), slice(0, 5))
    ]
    total = parts[0] + parts[1]
    np.testing.assert_array_equal(total.correct, whole.correct)
    np.testing.assert_allclose(total.cosines, whole.cosines, atol=1e-12)
    assert total.auc == whole.auc
    assert total.interval == whole.interval
    for name in controls:
        np.testing.assert_array_equal(total.controls[name].correct, whole.controls[name].correct)
    with pytest.raises(ValueError, match="different recipes"):
        _ = whole + metrics.verification_insertion(model, first, second, maps, same, how)
    with pytest.raises(ValueError, match="share items"):
        _ = whole + whole


def test_saliency_of_pairs_is_taken_as_it_is(model, data):
    first, second, same = data
    why = CorrRISE(model, masks="grid", count=40, cells=4, keep=0.5)(first, second)
    curve = metrics.verification_deletion(model, first, second, why, same)
    by_maps = metrics.verification_deletion(model, first, second, why.maps, same)
    np.testing.assert_array_equal(curve.cosines, by_maps.cosines)
    other = FaceModel(Region().double(), InputSpec(SIZE, mean=0.1, std=1.0))
    with pytest.raises(ValueError, match="measure with the one explained"):
        metrics.verification_deletion(other, first, second, why, same)
    metrics.verification_deletion(other, first, second, why.maps, same)


def test_the_table(model, data, tmp_path):
    first, second, same = data
    true = TRUE.double().expand(8, 2, -1, -1) + 1e-3 * torch.rand(8, 2, SIZE, SIZE)
    methods = {
        "true": PairSaliency(true, (SIZE, SIZE), torch.zeros(8)),
        "wrong": -true,
        "CorrRISE": CorrRISE(model, masks="grid", count=40, cells=4, keep=0.5),
    }
    table = metrics.pair_faithfulness(methods, model, first, second, same, "epfl-inferred")
    rows = {row["map"]: row for row in table.rows}
    assert list(rows)[:5] == ["true", "wrong", "CorrRISE", "random pixels", "centre prior"]
    assert list(rows)[5:8] == ["random-region of true", "mean-map of true", "other-pair of true"]
    own = metrics.verification_deletion(model, first, second, true, same, "epfl-inferred")
    assert rows["true"]["deletion"] == own.auc
    assert rows["true"]["deletion interval"] == own.interval
    assert rows["true"]["deletion cosine"] == own.cosine_area.mean
    assert rows["centre prior"]["deletion"] == own.controls["centre"].auc
    assert rows["random pixels"]["deletion"] == own.controls["random"].auc
    assert rows["random-region of true"]["deletion"] == own.controls["random-region"].auc
    wrong = metrics.verification_insertion(model, first, second, -true, same, "epfl-inferred")
    assert rows["wrong"]["insertion"] == wrong.auc
    assert rows["true"]["specificity"] == pytest.approx(own.controls["other-pair"].auc - own.auc)
    for name, row in rows.items():
        assert row["control"] == (name not in methods)
    assert rows["wrong"]["beats centre"] is False
    assert rows["centre prior"]["beats centre"] is None
    assert table.recipe["pairs measured"] == 4
    assert table.recipe["pairs given"] == 8
    assert "centre prior" in str(table)
    assert [axes.get_title() for axes in table.plot().axes] == list(table.panels.values())
    table.save(tmp_path / "t.json")
    with pytest.raises(ValueError, match="at least one method"):
        metrics.pair_faithfulness({}, model, first, second, same)


def test_what_beats_a_control_is_tested():
    """With enough pairs, in both directions."""
    model = FaceModel(Region().double(), InputSpec(SIZE, mean=0.0, std=1.0))
    first = torch.rand(24, 3, SIZE, SIZE, dtype=torch.float64)
    second = torch.rand(24, 3, SIZE, SIZE, dtype=torch.float64)
    second[:20] = first[:20]
    same = torch.arange(24) < 20
    true = TRUE.double().expand(24, 2, -1, -1)
    how = Protocol(pairs="genuine", threshold=0.7)
    table = metrics.pair_faithfulness({"true": true, "wrong": -true}, model, first, second, same, how)
    for column in ("beats centre", "beats random-region", "insertion beats centre", "insertion beats random"):
        assert table.rows[0][column] is True, column
        assert table.rows[1][column] is False, column
    one = metrics.pair_faithfulness({"a": true[:1]}, model, first[:1], second[:1], same[:1], Protocol(threshold=0.5))
    assert one.rows[0]["beats centre"] is None
    assert one.rows[0]["specificity"] is None
    assert [row["map"] for row in one.rows] == ["a", "random pixels", "centre prior", "random-region of a"]


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"pairs": "genuin"}, "expected pairs one of .*did you mean 'genuine'"),
        ({"perturb": "first"}, "expected perturb one of"),
        ({"fill": "noise"}, "expected fill one of"),
        ({"rank": "smooth"}, "expected rank one of"),
        ({"auc": "sum"}, "expected auc one of"),
        ({"steps": 0}, "steps as a whole number of at least 1, got 0"),
        ({"steps": True}, "steps as a whole number"),
        ({"steps": 2.5}, "steps as a whole number"),
        ({"threshold": "best"}, "expected the rule 'eer'"),
        ({"threshold": "far=2"}, "false accept rate from 0 to 1"),
        ({"threshold": 1.1}, "from -1 to 1, a cosine"),
    ],
)
def test_protocols_that_do_not_exist(fields, message):
    with pytest.raises(ValueError, match=message):
        Protocol(**fields)


def test_a_protocol_is_quiet_about_rates_that_it_cannot_resolve_yet():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert Protocol(threshold="far=1e-3").threshold == "far=1e-3"
    assert Protocol() == Protocol()
    assert hash(Protocol())


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"model": object()}, TypeError, "expected a FaceModel that embeds, got object"),
        ({"maps": np.zeros((8, 2, SIZE, SIZE))}, TypeError, "PairSaliency or maps as a torch.Tensor"),
        ({"maps": torch.zeros(8, SIZE, SIZE)}, ValueError, r"expected maps \(8, 2, 12, 12\)"),
        ({"maps": torch.zeros(7, 2, SIZE, SIZE)}, ValueError, r"expected maps \(8, 2, 12, 12\)"),
        ({"maps": torch.full((8, 2, SIZE, SIZE), torch.nan)}, ValueError, "in those of pair"),
        ({"second": torch.rand(7, 3, SIZE, SIZE)}, ValueError, "as many second images"),
        ({"first": torch.full((8, 3, SIZE, SIZE), 200.0)}, ValueError, "divide 0..255"),
        ({"same": [True] * 7}, ValueError, "True or False for each of the 8 pairs"),
        ({"same": [2] * 8}, ValueError, "in same, got 2 in row 0"),
        ({"same": [True] * 8}, ValueError, "pairs of both kinds"),
        ({"identities": ["a"]}, ValueError, "one identity for each of the 8 pairs"),
        ({"items": [1]}, ValueError, "one item number"),
        ({"batch_size": 0}, ValueError, "batch size"),
        ({"protocol": "fam"}, ValueError, "no protocol is called 'fam'; did you mean 'fame'"),
        ({"part": "same"}, ValueError, "expected part one of"),
        ({"controls": ("rando",)}, ValueError, "no control is called 'rando'; did you mean 'random'"),
        ({"protocol": Protocol(pairs="accepted", threshold=1.0)}, ValueError, "about accepted pairs and none of the 8"),
    ],
)
def test_bad_input(model, data, maps, change, error, message):
    first, second, same = data
    given = {"model": model, "first": first, "second": second, "maps": maps, "same": same, **change}
    with pytest.raises(error, match=message):
        metrics.verification_deletion(**given)


def test_a_network_that_gives_nonsense_is_refused(data, maps):
    first, second, same = data

    class Nonsense:
        def embed(self, images):
            return torch.full((len(images), 2), torch.nan)

    with pytest.raises(ValueError, match="NaN or infinite embeddings"):
        metrics.verification_deletion(Nonsense(), first, second, maps, same)


def test_every_control_is_measured_by_default(model, data, maps):
    curve = metrics.verification_insertion(model, *data[:2], maps, data[2])
    assert tuple(curve.controls) == CONTROLS
    assert all(control is not None for control in curve.controls.values())


def test_equal_pictures_with_equal_pixels_are_embedded_once(model, data, maps):
    """One probe in all pairs, one map: every order of pixels costs one image per step."""
    first, second, same = data
    first, maps = first[:1].repeat(8, 1, 1, 1), maps[:1].repeat(8, 1, 1, 1)
    seen = []
    model.embed(first)  # the first batch asks whether images change each other
    model.net.register_forward_hook(lambda net, given, out: seen.append(len(given[0])))
    curve = metrics.verification_deletion(model, first, second, maps, same, controls=("centre", "mean-map", "random"))
    alike, random = 3, 8  # orders: the map, the centre, the mean map; a random one for each pair
    assert sum(seen) == 3 * 8 + 9 * (alike + random)
    how = Protocol(threshold=curve.recipe["accepted from"])
    for p in range(8):
        alone = metrics.verification_deletion(
            model, first[p : p + 1], second[p : p + 1], maps[p : p + 1], same[p : p + 1], how, controls=()
        )
        assert np.allclose(alone.cosines[0], curve.cosines[p])


@pytest.mark.parametrize("part", ["similar", "auto"])
@pytest.mark.parametrize("perturbed", ["probe", "both"])
def test_parts_with_the_whole_sets_reference_add_to_the_whole(model, data, maps, part, perturbed):
    first, second, same = data
    people = ["ann", "ann", "bo", "bo", "ann", "ann", "bo", "bo"]
    partners_of = [*people[:4], "bo", "cleo", "ann", "ann"]
    limit = metrics.verification_deletion(model, first, second, maps, same, controls=()).recipe["accepted from"]
    how = Protocol(steps=4, threshold=limit, perturb=perturbed)
    whole = metrics.verification_deletion(
        model, first, second, maps, same, how, part, identities=people, partners=partners_of
    )
    sides = slice(0, 1 if perturbed == "probe" else 2)
    signs = {1: list(range(8))} if part == "similar" else {1: [0, 1, 2, 3], -1: [4, 5, 6, 7]}
    means, others = {}, torch.empty_like(maps[:, sides])
    for sign, rows in signs.items():
        turned = sign * maps[rows, sides]
        means[sign] = torch.stack([metrics.mean_map(side) for side in turned.unbind(1)])
        partners = metrics.other_identity_index(len(rows), [people[i] for i in rows])
        others[rows] = maps[rows, sides][partners]
    sums = []
    for rows in (slice(0, 3), slice(3, 8)):
        reference = metrics.PairReference(means, others[rows])
        sums.append(
            metrics.verification_deletion(
                *(model, first[rows], second[rows], maps[rows, sides], same[rows], how, part),
                identities=people[rows],
                partners=partners_of[rows],
                items=range(8)[rows],
                reference=reference,
            )
        )
    added = sums[0] + sums[1]
    assert added.interval == whole.interval
    for name, control in whole.controls.items():
        np.testing.assert_array_equal(added.controls[name].cosines, control.cosines, err_msg=name)
    none = metrics.PairReference({}, None)
    alone = metrics.verification_deletion(model, first, second, maps, same, how, part, reference=none)
    assert alone.controls["other-pair"] is None
    assert alone.controls["mean-map"] is None
