"""Metrics by hand, their identities, and what they refuse."""

from __future__ import annotations

import dataclasses
import itertools
import json

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from nets import FlatNet, GapNet, shaken

from facexai import CAM, SDD, FaceModel, FaceXAIWarning, GradCAM, HiResCAM, InputSpec, Saliency, metrics, perturb
from facexai.metrics._batch import Reference, mean_map, other_identity_index
from facexai.metrics.drop import margin
from facexai.metrics.sanity import rank_correlation
from facexai.metrics.statistic import Statistic
from facexai.perturb._ties import tie_fields

pytestmark = pytest.mark.filterwarnings("ignore:probabilities are saturated")


class Brightness:
    """A classifier whose logits anybody can work out: the mean of the left and of the right half, times 4."""

    def logits(self, images):
        half = images.shape[-1] // 2
        return 4 * torch.stack([images[..., :half].mean((1, 2, 3)), images[..., half:].mean((1, 2, 3))], 1)


@pytest.fixture
def images():
    """Three 4x4 images: left half bright, right half dimmer."""
    picture = torch.zeros(3, 3, 4, 4)
    picture[..., :2], picture[..., 2:] = 1.0, torch.tensor([0.25, 0.5, 0.75])[:, None, None, None]
    return picture


@pytest.fixture
def left(images):
    """Maps that mark the left half, from top to bottom."""
    maps = torch.zeros(3, 4, 4)
    maps[..., :2] = torch.arange(8.0, 0.0, -1).view(4, 2) + 1
    return maps


def p(a, b):
    return np.exp(4 * a) / (np.exp(4 * a) + np.exp(4 * b))


def test_deletion_by_hand(images, left):
    drop = metrics.deletion(Brightness(), images, left, area=0.25)
    rights = np.array([0.25, 0.5, 0.75])  # 4 of 16 pixels, all on the left: its mean falls from 1 to .5
    before, after = p(1, rights), p(0.5, rights)
    np.testing.assert_allclose(drop.probability.values, 100 * (before - after))
    np.testing.assert_allclose(drop.relative.values, 100 * (before - after) / before)
    np.testing.assert_allclose(drop.score.values, 2.0)
    np.testing.assert_allclose(drop.margin.values, 2.0)
    np.testing.assert_array_equal(drop.change.values, [0, 0, 1])
    assert drop.drop == pytest.approx(100 * (before - after).mean())
    assert drop.changed == pytest.approx(1 / 3)
    assert metrics.prediction_change(Brightness(), images, left, area=0.25).mean == pytest.approx(1 / 3)
    centre = perturb.top_area(perturb.centre_prior((4, 4))[None], 0.25)[0]
    assert centre[1:3, 1:3].all()
    np.testing.assert_allclose(drop.controls["centre"].score.values, 4 * 2 / 8)


def test_the_ends_of_area(images, left):
    nothing = metrics.deletion(Brightness(), images, left, area=0.0)
    assert nothing.drop == 0
    assert nothing.changed == 0
    whole = metrics.deletion(Brightness(), images, left, area=1.0)
    np.testing.assert_allclose(whole.probability.values, 100 * (p(1, np.array([0.25, 0.5, 0.75])) - 0.5))
    everything = metrics.retention(Brightness(), images, left, area=1.0)
    assert everything.drop == 0


@pytest.mark.parametrize("fill", ["black", "mean", "blur", "noise", 0.5])
def test_retention_is_the_deletion_of_the_complement(images, left, fill):
    distinct = left + torch.rand(left.shape) * 1e-3
    kept = metrics.retention(Brightness(), images, distinct, area=0.25, fill=fill, seed=3)
    gone = metrics.deletion(Brightness(), images, -distinct, area=0.75, fill=fill, seed=3)
    for name in ("probability", "relative", "score", "margin", "change"):
        np.testing.assert_allclose(getattr(kept, name).values, getattr(gone, name).values)


def test_fills_by_hand(images):
    assert (perturb.make_fill(images, "black") == 0).all()
    assert (perturb.make_fill(images, 0.3) == 0.3).all()
    torch.testing.assert_close(perturb.make_fill(images, "mean")[0, 0], torch.full((4, 4), 0.625))
    constant = torch.full((1, 3, 32, 32), 0.4)
    torch.testing.assert_close(perturb.make_fill(constant, "blur"), constant)
    noise = perturb.make_fill(images, "noise", seed=1, items=[4, 5, 6])
    torch.testing.assert_close(perturb.make_fill(images[1:2], "noise", seed=1, items=[5]), noise[1:2])
    assert not torch.equal(noise, perturb.make_fill(images, "noise", seed=2, items=[4, 5, 6]))
    with pytest.raises(ValueError, match="expected fill"):
        perturb.make_fill(images, "white")
    with pytest.raises(ValueError, match="0 to 1"):
        perturb.make_fill(images, 2.0)


def test_controls_by_hand(images, left):
    maps = left.clone()
    maps[1] = left[1].flip(-1)
    drop = metrics.deletion(Brightness(), images, maps, area=0.25, identities=["a", "b", "a"])
    # the partners are images 1, 2 and 1: map 1 marks the right half and harms the rival only
    np.testing.assert_allclose(np.sign(drop.controls["other-image"].margin.values), [-1, 1, -1])
    assert drop.specificity == pytest.approx(drop.drop - drop.controls["other-image"].drop)
    regions = perturb.top_area(maps, 0.25)
    moved = perturb.shift_mask(regions, seed=0)
    assert torch.equal(moved.flatten(1).sum(1), regions.flatten(1).sum(1))
    assert not any(torch.equal(a, b) for a, b in zip(moved, regions, strict=True))
    assert torch.equal(perturb.shift_mask(regions[2:], seed=0, items=[2]), moved[2:])


def test_controls_that_do_not_exist_say_why(images, left):
    one = metrics.deletion(Brightness(), images[:1], left[:1])
    assert one.controls["mean-map"] is None
    assert one.controls["other-image"] is None
    assert one.interval is None
    assert one.specificity is None
    assert one.p_value("other-image") is None
    assert "one image" in one.reasons["other-image"]
    same = metrics.deletion(Brightness(), images, left, identities=["a", "a", "a"])
    assert same.controls["other-image"] is None
    assert "another identity" in same.reasons["other-image"]
    assert same.interval is None
    with pytest.raises(KeyError, match="no control 'centre-map'"):
        same.p_value("centre-map")


@pytest.mark.parametrize("metric", [metrics.deletion, metrics.retention, metrics.insertion, metrics.deletion_curve])
def test_two_halves_add_to_the_whole(metric):
    images, maps = torch.rand(6, 3, 8, 8), torch.rand(6, 8, 8)
    people = ["a", "a", "b", "b", "c", "c"]
    reference = Reference(mean_map(maps), maps[other_identity_index(6, people)])
    whole = metric(Brightness(), images, maps, seed=5, fill="noise", identities=people)
    first, second = (
        metric(
            Brightness(),
            images[part],
            maps[part],
            seed=5,
            fill="noise",
            identities=people[part],
            items=list(range(6))[part],
            reference=Reference(reference.mean_map, reference.other_maps[part]),
        )
        for part in (slice(0, 2), slice(2, 6))
    )
    for total in (first + second, second + first):
        names = (
            ("area",) if metric in (metrics.insertion, metrics.deletion_curve) else ("probability", "margin", "change")
        )
        for name in names:
            np.testing.assert_allclose(getattr(total, name).values, getattr(whole, name).values, rtol=1e-6, atol=1e-9)
            assert getattr(total, name).interval == pytest.approx(getattr(whole, name).interval)
        for control, part in whole.controls.items():
            np.testing.assert_allclose(
                getattr(total.controls[control], names[0]).values, getattr(part, names[0]).values, rtol=1e-6, atol=1e-9
            )


def test_a_table_is_saved_whatever_its_recipes_hold(tmp_path):
    images, maps = torch.rand(4, 3, 8, 8), torch.rand(4, 8, 8)
    recipe = {"method": "mine", "dtype": torch.float32, "sizes": (1, 2)}
    why = Saliency(maps, (8, 8), torch.tensor([0, 1, 0, 1]), torch.rand(4), recipe=recipe)
    metrics.faithfulness({"mine": why}, Brightness(), images, steps=0).save(tmp_path / "table.json")
    held = json.loads((tmp_path / "table.json").read_text("utf-8"))["recipe"]["explainers"]["mine"]
    assert held == {"method": "mine", "dtype": "torch.float32", "sizes": [1, 2]}


def test_parts_that_do_not_add(images, left):
    one = metrics.deletion(Brightness(), images, left)
    with pytest.raises(ValueError, match="share items"):
        _ = one + one
    with pytest.raises(ValueError, match="different recipes"):
        _ = one + metrics.deletion(Brightness(), images, left, area=0.5)


def test_curves_by_hand(images, left):
    """Two pixels of the left half per step of an eighth: the left mean falls by a quarter each time."""
    curve = metrics.deletion_curve(Brightness(), images[:1], left[:1], steps=8)
    levels = [max(0.0, 1 - 0.25 * k) for k in range(9)]
    rights = [0.25] * 5 + [0.1875, 0.125, 0.0625, 0.0]
    expected = [p(a, b) for a, b in zip(levels, rights, strict=True)]
    np.testing.assert_allclose(curve.values[0], expected)
    area = sum((a + b) / 2 for a, b in itertools.pairwise(expected)) / 8
    assert curve.auc == pytest.approx(area)
    back = metrics.insertion(Brightness(), images[:1], -left[:1], steps=8, fill="black")
    np.testing.assert_allclose(back.values[0], expected[::-1], atol=1e-6)
    with pytest.raises(ValueError, match="at least one step"):
        metrics.insertion(Brightness(), images, left, steps=0)


def test_a_saliency_is_judged_for_its_own_targets(images):
    why = Saliency(torch.rand(3, 2, 2), (4, 4), torch.ones(3, dtype=torch.long), torch.ones(3))
    drop = metrics.deletion(Brightness(), images, why, area=1.0)
    np.testing.assert_allclose(drop.score.values, [1.0, 2.0, 3.0])


def test_a_saliency_of_another_classifier_is_refused(images):
    why = Saliency(torch.rand(3, 2, 2), (4, 4), torch.full((3,), 7), torch.ones(3))
    with pytest.raises(ValueError, match="target 7 is no class of this classifier, which has 2"):
        metrics.deletion(Brightness(), images, why)


def test_a_gallery_is_measured_in_cosines():
    model = FaceModel(shaken(FlatNet()), "arcface")
    people = model.gallery({f"p{i}": torch.randn(32) for i in range(4)}, scale=30.0)
    faces = torch.rand(3, 3, 112, 112)
    drop = metrics.deletion(people, faces, HiResCAM(people)(faces), area=1.0)
    black = people.cosines(torch.zeros(1, 3, 112, 112))[0]
    expected = [float(people.cosines(faces)[i].max() - black[people.cosines(faces)[i].argmax()]) for i in range(3)]
    np.testing.assert_allclose(drop.score.values, expected, atol=1e-5)
    assert drop.recipe["score"] == "cosine"


@given(st.integers(1, 4), st.integers(1, 9), st.floats(0, 1), st.integers(0, 3), st.integers(0, 99))
@settings(max_examples=80, deadline=None)
def test_the_area_is_exact_by_rank_whatever_the_ties(n, side, area, levels, seed):
    drawn = torch.Generator().manual_seed(seed)
    maps = torch.randint(0, levels + 1, (n, side, side), generator=drawn).float()
    chosen = perturb.top_area(maps, area)
    assert (chosen.flatten(1).sum(1) == round(area * side * side)).all()
    for values, region in zip(maps.flatten(1).tolist(), chosen.flatten(1).tolist(), strict=True):
        kinds = [[v for v, inside in zip(values, region, strict=True) if inside is kind] for kind in (True, False)]
        assert not all(kinds) or min(kinds[0]) >= max(kinds[1])


@pytest.mark.parametrize(
    ("maps", "options", "message"),
    [
        (torch.full((3, 4, 4), float("nan")), {}, r"map of image \[0, 1, 2\]"),
        (torch.zeros(2, 4, 4), {}, "each of the 3 images"),
        (torch.zeros(3, 5, 4), {}, "each of the 3 images"),
        (torch.zeros(4, 4), {}, r"maps \(N, H, W\)"),
        (torch.rand(3, 4, 4), {"area": 1.5}, "0 to 1"),
        (torch.rand(3, 4, 4), {"identities": ["a"]}, "one identity"),
        (torch.rand(3, 4, 4), {"items": [1]}, "one item number"),
        (torch.rand(3, 4, 4), {"fill": "white"}, "expected fill"),
    ],
)
def test_bad_input(images, maps, options, message):
    with pytest.raises(ValueError, match=message):
        metrics.deletion(Brightness(), images, maps, **options)


def test_one_class_has_no_probability(images, left):
    class One:
        def logits(self, x):
            return x.mean((1, 2, 3))[:, None]

    with pytest.raises(ValueError, match="at least two classes"):
        metrics.deletion(One(), images, left)


def test_margins():
    logits = torch.tensor([[3.0, 1.0, 2.0], [0.0, 5.0, 1.0]])
    assert margin(logits, torch.tensor([1, 1])).tolist() == [-2.0, 4.0]


class TestStatistic:
    def test_the_interval_is_that_of_a_bootstrap_by_identity(self):
        values = np.array([0.0, 0.0, 0.0, 10.0])
        low, high = Statistic.of(values, identities=["a", "a", "a", "b"]).interval
        assert (low, high) == (0.0, 10.0)  # half of the draws see one person only
        rng = np.random.default_rng(1)
        wide = Statistic.of(rng.normal(5, 1, 400))
        low, high = wide.interval
        assert low == pytest.approx(wide.mean - 1.96 / 20, abs=0.03)
        assert high == pytest.approx(wide.mean + 1.96 / 20, abs=0.03)

    def test_the_paired_test_counts_sign_patterns(self):
        a, b = Statistic.of([1.0, 2.0, 3.0]), Statistic.of([0.0, 0.0, 0.0])
        assert a.p_value(b) == pytest.approx(2 / 8)  # all same sign: 2 of 8 patterns are as extreme
        assert a.p_value(a) == 1.0
        people = Statistic.of([1.0, 2.0, 3.0, 4.0], identities=["x", "x", "y", "y"])
        assert people.p_value(Statistic.of([0.0] * 4, identities=["x", "x", "y", "y"])) == pytest.approx(2 / 4)
        with pytest.raises(ValueError, match="same images"):
            a.p_value(Statistic.of([0.0], items=[7]))

    def test_bad_numbers(self):
        for values in ([], [float("nan")], [[1.0]]):
            with pytest.raises(ValueError, match="expected"):
                Statistic.of(values)
        with pytest.raises(ValueError, match="both or neither"):
            _ = Statistic.of([1.0]) + Statistic.of([1.0], items=[1], identities=["a"])


def test_narrowness_by_hand():
    maps = torch.tensor([[[8.0, 4.0], [3.0, 1.0]], [[-1.0, -2.0], [0.0, -3.0]]])
    narrow = metrics.narrowness(maps)
    np.testing.assert_allclose(narrow.above_half.values, [0.5, 1.0])
    np.testing.assert_allclose(narrow.half_mass.values, [0.25, 1.0])
    both = metrics.narrowness(maps[:1]) + metrics.narrowness(maps[1:], items=[1])
    np.testing.assert_allclose(both.half_mass.values, narrow.half_mass.values)


def test_class_overlap_by_hand():
    """Three classes that all light the first row, and each a pixel of its own: SDD leaves the own pixels."""
    cells = torch.zeros(1, 3, 4, 4)
    cells[:, :, 0] = 1.0
    for k in range(3):
        cells[0, k, 2, k] = 0.9
    why = Saliency(
        torch.zeros(1, 4, 4),
        (4, 4),
        torch.tensor([0]),
        torch.tensor([1.0]),
        recipe={"sdd": {"power": 15.0}},
        class_cells=cells,
    )
    overlap = metrics.class_overlap(why, area=1 / 16)
    assert overlap.before.mean == 1.0
    assert overlap.after.mean == 0.0
    with pytest.raises(ValueError, match="SDD result"):
        metrics.class_overlap(dataclasses.replace(why, class_cells=None))


def test_mad_by_hand(images):
    counterparts = images.clone()
    counterparts[..., :2] = 0.5
    rights = np.array([0.25, 0.5, 0.75])
    result = metrics.mad(Brightness(), images, counterparts, 0)
    np.testing.assert_allclose(result.signed.values, p(1, rights) - p(0.5, rights))
    assert result.mad == pytest.approx(abs(result.signed.values).mean())
    assert result.md == pytest.approx(result.mad)
    assert result.p_value == pytest.approx(2 / 8)
    none = metrics.mad(Brightness(), images, images)
    assert (none.mad, none.p_value) == (0, 1)
    assert metrics.mad(Brightness(), images, counterparts, torch.tensor([1, 0, 1])).signed.values[0] < 0
    with pytest.raises(ValueError, match="same shape"):
        metrics.mad(Brightness(), images, images[:1])
    with pytest.raises(ValueError, match="from 0 to 1"):
        metrics.mad(Brightness(), images, images, 2)


@pytest.fixture
def people():
    model = FaceModel(shaken(FlatNet()), "arcface")
    return model.gallery({f"p{i}": torch.randn(32) for i in range(5)})


def test_maps_that_explain_the_network_fall_apart_with_it(people):
    faces, targets = torch.rand(2, 3, 112, 112), torch.tensor([0, 1])
    state = {k: v.clone() for k, v in people.model.net.state_dict().items()}
    result = metrics.randomisation(lambda c: HiResCAM(c, layer="layer3"), people, faces, targets)
    assert result.layers[0] == "features"
    assert result.layers[-1] == "stem"
    assert abs(result.means[-1]) < 0.5
    assert all(torch.equal(v, state[k]) for k, v in people.model.net.state_dict().items())

    def edges(_):
        return lambda images, targets: Saliency(images.mean(1), (112, 112), targets, torch.zeros(2))

    assert metrics.randomisation(edges, people, faces, targets).means == pytest.approx([1.0] * len(result.means))


def test_stability(people):
    faces, targets = torch.rand(2, 3, 112, 112), torch.tensor([0, 1])
    explainer = HiResCAM(people, layer="layer3")
    steady, shaky = (metrics.stability(explainer, faces, targets, sigma=s).mean for s in (1e-4, 0.3))
    assert steady > 0.99
    assert shaky < steady
    with pytest.raises(ValueError, match="at least one draw"):
        metrics.stability(explainer, faces, targets, draws=0)


def test_rank_correlations():
    from scipy import stats

    a, b = torch.rand(3, 5, 5).round(decimals=1), torch.rand(3, 5, 5).round(decimals=1)
    expected = [stats.spearmanr(x.flatten(), y.flatten()).statistic for x, y in zip(a, b, strict=True)]
    np.testing.assert_allclose(rank_correlation(a, b), expected)
    assert rank_correlation(torch.ones(1, 2, 2), torch.rand(1, 2, 2)).tolist() == [0.0]


def test_the_table(people, tmp_path):
    faces = torch.rand(4, 3, 112, 112)
    methods = {"HiResCAM": HiResCAM(people), "Grad-CAM": GradCAM(people), "SDD": SDD(CAM(people))(faces)}
    table = metrics.faithfulness(methods, people, faces, steps=2, identities=["a", "b", "a", "b"])
    assert [row["map"] for row in table.rows] == [*methods, "centre prior"]
    own = metrics.deletion(people, faces, HiResCAM(people)(faces), identities=["a", "b", "a", "b"])
    assert table.rows[0]["deletion"] == pytest.approx(own.drop)
    assert table.rows[-1]["deletion"] == pytest.approx(own.controls["centre"].drop)
    assert "centre prior" in str(table)
    table.save(tmp_path / "t.json")
    assert json.loads((tmp_path / "t.json").read_text())["rows"][0]["map"] == "HiResCAM"
    assert len(table.plot().axes) == 3
    with pytest.raises(ValueError, match="at least one method"):
        metrics.faithfulness({}, people, faces)


def test_a_calibrated_scale_is_the_most_probable_one():
    """Photos scattered around ten people: the scale found makes left-out photos more probable than its neighbours."""
    model = FaceModel(shaken(GapNet(16)), InputSpec(64))
    centres, drawn = torch.randn(10, 16), torch.Generator().manual_seed(0)
    rows = {f"p{k}": centres[k] + 0.8 * torch.randn(6, 16, generator=drawn) for k in range(10)}
    people = model.gallery(rows, scale="calibrated")

    def loss(scale):
        total, count = 0.0, 0
        for k, photos in enumerate(rows.values()):
            unit = torch.nn.functional.normalize(photos)
            for i in range(6):
                templates = people.templates.clone()
                templates[k] = torch.nn.functional.normalize(unit[[j for j in range(6) if j != i]].mean(0), dim=0)
                total -= float((scale * unit[i] @ templates.T).log_softmax(0)[k])
                count += 1
        return total / count

    assert 1 < people.scale < 1000
    assert loss(people.scale) < min(loss(people.scale * 1.1), loss(people.scale / 1.1))
    centred = model.gallery(rows, scale="calibrated", center="enrolled")
    assert centred.scale != people.scale
    with pytest.raises(ValueError, match="at least two photos"):
        model.gallery({k: v[:1] for k, v in rows.items()}, scale="calibrated")
    with pytest.raises(ValueError, match="'calibrated'"):
        model.gallery(rows, scale="best")


def test_what_cannot_be_calibrated_is_said():
    model = FaceModel(shaken(GapNet(16)), InputSpec(64))
    apart = {f"p{k}": torch.eye(16)[k] + 0.01 * torch.randn(4, 16) for k in range(5)}
    with pytest.warns(FaceXAIWarning, match="separated perfectly"):
        assert model.gallery(apart, scale="calibrated").scale == 64.0
    alike = {f"p{k}": torch.randn(4, 16, generator=torch.Generator().manual_seed(0)) for k in range(5)}
    with pytest.warns(FaceXAIWarning, match="do not tell people apart"):
        assert model.gallery(alike, scale="calibrated").scale == 64.0


def test_another_gallery_is_not_measured_by_accident(people):
    faces = torch.rand(2, 3, 112, 112)
    why = HiResCAM(people)(faces)
    turned = dataclasses.replace(people, names=people.names[::-1], templates=people.templates.flip(0))
    with pytest.raises(ValueError, match="names other classes"):
        metrics.deletion(turned, faces, why)


def test_a_table_compares_like_with_like(people):
    faces = torch.rand(2, 3, 112, 112)
    methods = {"a": HiResCAM(people)(faces, "p0"), "b": HiResCAM(people)(faces, "p1")}
    with pytest.raises(ValueError, match="'b' explains other classes"):
        metrics.faithfulness(methods, people, faces, steps=0)


def test_one_image_is_never_called_beaten(people):
    faces = torch.rand(1, 3, 112, 112)
    table = metrics.faithfulness({"HiResCAM": HiResCAM(people)}, people, faces, steps=0)
    assert table.rows[0]["beats centre"] is None
    assert table.rows[0]["deletion interval"] is None
    assert str(table)


class Sure(Brightness):
    """The same decision with logits so far apart that every probability is 1."""

    def logits(self, images):
        return 400 * super().logits(images) + torch.tensor([4000.0, 0.0])


def test_a_saturated_drop_says_so_and_leads_with_the_margin(images, left):
    with pytest.warns(FaceXAIWarning, match=r"neither the map nor a control costs 0.05 points. Read .margin_drop"):
        drop = metrics.deletion(Sure(), images, left, area=0.25)
    assert drop.saturated
    assert drop.drop == 0
    assert repr(drop).startswith(
        "Drop(deletion: 800.000 margin (logit) of 3 images, whose probabilities are saturated; "
    )
    centre = drop.controls["centre"].margin_drop
    assert f"centre {centre:.3f}" in repr(drop)
    with pytest.warns(FaceXAIWarning, match="saturated"):
        assert metrics.retention(Sure(), images, left, area=0.25).saturated
    plain = metrics.deletion(Brightness(), images, left, area=0.25)
    assert not plain.saturated
    assert f"Drop(deletion: {plain.drop:.1f} points of 3 images; random" in repr(plain)


def test_a_drop_of_nothing_at_all_is_not_saturated(images, left):
    class Blind:
        def logits(self, images):
            return torch.tensor([[1.0, 0.0]]).repeat(len(images), 1)

    assert not metrics.deletion(Blind(), images, left).saturated


def test_percentages_of_nothing_stay_finite():
    class Steep:
        def logits(self, x):
            return 3000 * torch.stack([x.mean((1, 2, 3)), 1 - x.mean((1, 2, 3))], 1)

    drop = metrics.deletion(Steep(), torch.full((2, 3, 4, 4), 0.4), torch.rand(2, 4, 4), area=1.0)
    assert np.isfinite(drop.relative_drop)
    assert metrics.deletion(Steep(), torch.full((2, 3, 4, 4), 0.4), torch.rand(2, 4, 4)).controls["centre"] is not None


def test_specificity_has_an_interval(images, left):
    drop = metrics.deletion(Brightness(), images, left * torch.rand(left.shape), identities=["a", "b", "c"])
    assert drop.specific.mean == pytest.approx(drop.specificity)
    assert drop.specific.interval is not None


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"images": torch.full((3, 3, 4, 4), 200.0)}, ValueError, "divide 0..255"),
        ({"saliency": np.zeros((3, 4, 4))}, TypeError, "torch.Tensor"),
        ({"batch_size": 0}, ValueError, "batch size"),
        ({"items": [1, 1, 2]}, ValueError, "distinct item"),
        ({"reference": Reference(torch.zeros(2, 2))}, ValueError, r"reference\.mean_map"),
        ({"reference": Reference(None, torch.zeros(1, 4, 4))}, ValueError, r"reference\.other_maps"),
    ],
)
def test_more_bad_input(images, left, change, error, message):
    given = {"images": images, "saliency": left, **change}
    with pytest.raises(error, match=message):
        metrics.deletion(Brightness(), given.pop("images"), given.pop("saliency"), **given)


def test_layers_are_shuffled_from_the_output_also_when_registered_first():
    class Odd(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.head, self.conv = torch.nn.Linear(196, 6), torch.nn.Conv2d(3, 4, 16, stride=16)

        def forward(self, x):
            return self.head(self.conv(x).flatten(1))

    model = FaceModel(Odd().eval(), InputSpec(112), output="logits")
    result = metrics.randomisation(CAM, model, torch.rand(1, 3, 112, 112), torch.tensor([0]))
    assert result.layers == ("head", "conv")


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10_000), st.floats(0, 1), st.integers(1, 4))
def test_the_top_area_is_that_of_a_sort_by_values_and_by_the_field(seed, area, levels):
    drawn = torch.Generator().manual_seed(seed)
    maps = torch.rand(2, 5, 7, generator=drawn).mul(levels).round()  # many equal values
    fields = torch.stack([tie_fields((5, 7), item)[0] for item in range(2)])
    flat = 1000.0 * maps.double().flatten(1) + fields.flatten(1)
    chosen = flat.sort(dim=1, descending=True, stable=True).indices[:, : round(area * 35)]
    expected = torch.zeros_like(flat, dtype=torch.bool).scatter_(1, chosen, True).view_as(maps)
    for dtype in (torch.float32, torch.float64, torch.float16):
        assert torch.equal(perturb.top_area(maps.to(dtype), area), expected)


def test_of_very_many_people_the_normal_distribution_stands_for_draws(monkeypatch):
    rng = np.random.default_rng(0)
    people = [str(i) for i in rng.integers(0, 400, 1500)]
    own = Statistic.of(rng.normal(1, 2, 1500), identities=people)
    other = Statistic.of(own.values - rng.normal(0.08, 1, 1500), identities=people)
    drawn, p = own.interval, own.p_value(other)
    monkeypatch.setattr("facexai.metrics.statistic._MANY", 100)
    np.testing.assert_allclose(own.interval, drawn, atol=0.02)
    assert own.interval != drawn
    assert own.p_value(other) == pytest.approx(p, rel=0.2)
    assert own.p_value(own) == 1.0


@pytest.mark.parametrize("scheme", ["deletion", "retention"])
def test_a_drop_is_what_its_values_say(images, left, scheme):
    drop = getattr(metrics, scheme)(Brightness(), images, left, area=0.25, items=[3, 4, 5], identities=["a", "b", "a"])
    again = metrics.Drop.of(drop.values, items=[3, 4, 5], identities=["a", "b", "a"], recipe=drop.recipe)
    for name in ("drop", "relative_drop", "score_drop", "margin_drop", "changed", "interval"):
        assert getattr(again, name) == getattr(drop, name)
